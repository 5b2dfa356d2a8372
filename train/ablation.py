"""`gconet ablate`: the six rows of Table 1, each trained and scored with one budget and the same seeds."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gconet.bench.network_accuracy import network_scores
from gconet.runtime.command_line import EXIT_DONE, Parser, write_json
from gconet.runtime.errors import UsageError
from gconet.train.arguments import add_training_arguments, training_config
from gconet.train.checkpoint import read_checkpoint
from gconet.train.config import TrainingConfig
from gconet.train.groups import hold_out, read_groups
from gconet.train.model import Architecture
from gconet.train.train_command import run_training
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
  gconet ablate --data DUTS_class --hold-out apple banana --vgg vgg16.pth --seeds 0 1 2 --out runs/ablation

Scores are those of the last checkpoints on --hold-out, by eval-co-sod, never of the best: choosing among checkpoints by
the score that is reported would favour whoever validates more. The same command again goes on where it stopped."""


def main(arguments: Sequence[str]) -> int:
    """Run the ablation; exit code 130 after Ctrl-C, with what is done kept."""
    parser = Parser("gconet ablate", "Train and score GCoNet with its modules switched on and off.", EPILOG)
    add_training_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run a row for each (0)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which rows (all)")
    options = parser.parse_args(arguments)
    config = training_config(options)
    if not config.hold_out:
        raise UsageError("--hold-out names the groups to score on: give at least one")
    _, held_out = hold_out(read_groups(config.data), config.hold_out)

    results: dict[str, list[dict[str, float]]] = {}
    for row in options.rows:
        for seed in options.seeds:
            run_config = _run_config(config, row, seed)
            print(f"{row}, seed {seed}")
            code = run_training(run_config)
            if code != EXIT_DONE:
                return code
            checkpoint = read_checkpoint(run_config.out / LAST_NAME)
            scores = network_scores(checkpoint.network(), held_out, checkpoint.info.preprocessing)
            results.setdefault(row, []).append(dataclasses.asdict(scores))
        write_json(config.out / "ablation.json", _document(config, options.seeds, results))
    print(ablation_table(results))
    return EXIT_DONE


def ablation_table(results: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Mean over the seeds, and the sample standard deviation where there are several."""
    lines = [f"{'':<10}" + "".join(f"{title:>16}" for title in COLUMNS.values())]
    for row, runs in results.items():
        cells = [_mean_and_spread([run[key] for run in runs]) for key in COLUMNS]
        lines.append(f"{row:<10}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def _run_config(config: TrainingConfig, row: str, seed: int) -> TrainingConfig:
    switches = ROWS[row]
    architecture = dataclasses.replace(config.architecture, gam=switches.gam, gcm=switches.gcm, acm=switches.acm)
    folder = row.lower().replace("+", "-").strip("-")
    return dataclasses.replace(config, architecture=architecture, seed=seed, out=config.out / f"{folder}-seed{seed}")


def _document(
    config: TrainingConfig, seeds: Sequence[int], results: Mapping[str, Sequence[Mapping[str, float]]]
) -> dict[str, Any]:
    settings = dataclasses.asdict(config)
    for key in ("data", "out", "cutouts", "vgg"):
        settings[key] = Path(settings[key]).name if settings[key] else None  # names, not the machine's paths
    return {"toolbox": "eval-co-sod", "seeds": list(seeds), "settings": settings, "rows": dict(results)}
