"""`gconet ablate`: the six rows of Table 1, each trained and scored with one budget and the same seeds."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gconet.bench.environment import describe_environment
from gconet.bench.network_accuracy import network_scores
from gconet.runtime.command_line import EXIT_DONE, Parser, write_json
from gconet.runtime.errors import UsageError
from gconet.train.arguments import add_training_arguments, seed, training_config
from gconet.train.checkpoint import read_checkpoint
from gconet.train.config import TrainingConfig
from gconet.train.data_check import checked_groups
from gconet.train.groups import DataError, LabelledGroup
from gconet.train.model import Architecture
from gconet.train.train_command import check_machine, print_problems, train_on
from gconet.train.training_state import LAST_NAME

ROWS: Mapping[str, Architecture] = {
    "baseline": Architecture(gam=False, gcm=False, acm=False),
    "+GAM": Architecture(gam=True, gcm=False, acm=False),
    "+GCM": Architecture(gam=False, gcm=True, acm=False),
    "+ACM": Architecture(gam=False, gcm=False, acm=True),
    "GAM+GCM": Architecture(gam=True, gcm=True, acm=False),
    "all": Architecture(gam=True, gcm=True, acm=True),
}
COLUMNS: Mapping[str, str] = {"s": "S", "max_f": "max-F", "max_e": "max-E", "mae": "MAE"}  # of Scores

EPILOG = """\
example:
  gconet ablate --data duts --hold-out SET/apple SET/banana --vgg vgg16.pth --small-groups cut --seeds 0 1 2 \\
      --out runs/ablation

Scores are those of the last checkpoints on --hold-out, by eval-co-sod, never of the best: choosing among checkpoints by
the score that is reported would favour whoever validates more. The same command again goes on where it stopped."""


def main(arguments: Sequence[str]) -> int:
    """Run the ablation; exit code 130 after Ctrl-C, with what is done kept."""
    parser = Parser("gconet ablate", "Train and score GCoNet with its modules switched on and off.", EPILOG)
    add_training_arguments(parser)
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0], help="one run a row for each (default: 0)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which rows (default: all six)")
    parser.set_defaults(seed=0, no_gam=False, no_gcm=False, no_acm=False)  # every run has its own
    options = parser.parse_args(arguments)
    config = training_config(options)
    if not config.hold_out:
        raise UsageError("--hold-out names the groups to score on: give at least one")
    rows, seeds = dict.fromkeys(options.rows), dict.fromkeys(options.seeds)  # each once
    _check_start(config, rows)
    check_machine(config)
    try:
        groups, held_out = checked_groups(config)
    except DataError as error:
        return print_problems(error)
    return _run_rows(config, list(rows), list(seeds), groups, held_out)


def ablation_table(results: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Mean over the seeds, and the sample standard deviation where there are several."""
    lines = [f"{'':<10}" + "".join(f"{title:>16}" for title in COLUMNS.values())]
    for row, runs in results.items():
        cells = [_mean_and_spread([run[key] for run in runs]) for key in COLUMNS]
        lines.append(f"{row:<10}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def _check_start(config: TrainingConfig, rows: Iterable[str]) -> None:
    """Raise UsageError, before the first row is trained, if a later one cannot have this start; CheckpointError."""
    if not config.start_from:
        return
    gam = read_checkpoint(config.start_from).info.architecture.gam
    if others := [row for row in rows if ROWS[row].gam != gam]:
        raise UsageError(f"--start-from {config.start_from} has {'a' if gam else 'no'} GAM, which {', '.join(others)} "
                         f"{'lack' if gam else 'want'}: name the other --rows")  # fmt: skip


def _run_rows(
    config: TrainingConfig,
    rows: Sequence[str],
    seeds: Sequence[int],
    groups: Sequence[LabelledGroup],
    held_out: Sequence[LabelledGroup],
) -> int:
    results: dict[str, list[dict[str, float]]] = {}
    path = config.out / "ablation.json"
    for row in rows:
        for number in seeds:
            run_config = _run_config(config, row, number)
            print(f"{row}, seed {number}")
            code = train_on(run_config, groups, held_out)
            if code != EXIT_DONE:
                return code
            checkpoint = read_checkpoint(run_config.out / LAST_NAME)
            scores = network_scores(checkpoint.network(), held_out, checkpoint.info.preprocessing)
            results.setdefault(row, []).append(dataclasses.asdict(scores))
        document = _document(config, seeds, results)
        document["rows"] = _rows_before(path, document) | document["rows"]
        write_json(path, document)
    print(ablation_table(results))
    return EXIT_DONE


def _rows_before(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of an earlier run into the same folder, if its settings and seeds were these."""
    try:
        earlier = json.loads(path.read_bytes())
        same = all(earlier[key] == json.loads(json.dumps(document[key])) for key in ("settings", "seeds"))
        return dict(earlier["rows"]) if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def _run_config(config: TrainingConfig, row: str, seed: int) -> TrainingConfig:
    switches = ROWS[row]
    architecture = dataclasses.replace(config.architecture, gam=switches.gam, gcm=switches.gcm, acm=switches.acm)
    folder = row.lower().replace("+", "-").strip("-")
    return dataclasses.replace(
        config,
        architecture=architecture,
        weights=config.weights if switches.gam else dataclasses.replace(config.weights, attention=0.0),
        seed=seed,
        out=config.out / f"{folder}-seed{seed}",
        features=config.features or (config.out / "features" if config.reuse > 1 else None),
    )


def _document(
    config: TrainingConfig, seeds: Sequence[int], results: Mapping[str, Sequence[Mapping[str, float]]]
) -> dict[str, Any]:
    settings = dataclasses.asdict(config)
    del settings["seed"], settings["architecture"]  # every run has its own
    del settings["features"]  # makes no difference
    for key in ("data", "out", "cutouts", "vgg", "start_from"):
        settings[key] = settings[key].resolve().name if settings[key] else None  # names, not the machine's paths
    facts = {"toolbox": "eval-co-sod", "seeds": list(seeds), "settings": settings}
    return {**facts, "rows": dict(results), "environment": describe_environment()}
