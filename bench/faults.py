"""Faults on purpose, and what comes of them: `python bench/faults.py --json F --markdown F`.

Commands are killed at random moments, disks are full, files are damaged or hostile. A loss is what must never happen:
half a file under its final name, a traceback, damage that is accepted, a repetition that does not complete.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gconet.bench import fault_commands, fault_files, fault_kills, fault_trust
from gconet.bench.environment import describe_environment
from gconet.bench.fault_rows import Fault, fault_table
from gconet.bench.output_files import check_output
from gconet.runtime.atomic import replacing
from gconet.runtime.command_line import EXIT_CHECK_FAILED, EXIT_DONE, Parser, positive, run, warn, write_json
from gconet.runtime.errors import UsageError

EPILOG = """\
examples:
  python bench/faults.py --json faults.json --markdown faults.md        half an hour
  python bench/faults.py --kills 5 --pairs 1 --tries 20                 some minutes

A network of a few thousand weights is built for it, so that commands are over soon. Linux only.

Exit codes: 0 nothing was lost; 1 something was, and is told; 2 bad input."""
FILE_LIMITS = (0, 1000)  # bytes
MAX_PEAK_MB = 1000  # of reading small files that claim to be large


@dataclass(frozen=True)
class Trial:
    """What the steps share: a tiny network's checkpoint and bundle, how often to try, and the random numbers."""

    checkpoint: Path
    bundle: Path
    kills: int
    pairs: int
    tries: int
    draw: random.Random


def _bombs(trial: Trial, place: Path) -> Fault:
    fault, peak = fault_files.bombs(trial.bundle, place)
    fault.name += f" (peak memory {peak:.0f} MB)"
    if peak > MAX_PEAK_MB:
        fault.lose(f"{peak:.0f} MB for small files")
    return fault


# name -> what is tried in an empty folder of its own; the order is that of the table.
STEPS: Mapping[str, Callable[[Trial, Path], Fault | list[Fault]]] = {
    "kill-detect": lambda t, place: fault_kills.kill_detect(t.bundle, place, t.kills, t.draw),
    "kill-build": lambda t, place: fault_kills.kill_build(t.checkpoint, place, t.kills, t.draw),
    "kill-publishing": lambda t, place: fault_kills.kill_publishing(place, t.kills, t.draw),
    "build-twice": lambda t, place: fault_kills.build_twice(t.checkpoint, place, t.pairs),
    "full-disk": lambda t, place: fault_commands.fill_disk(t.bundle, t.checkpoint, place, FILE_LIMITS),
    "read-only": lambda t, place: fault_commands.write_to_read_only(t.bundle, t.checkpoint, place),
    "signed": lambda t, place: fault_trust.tamper_signed(t.bundle, place, t.tries, t.draw),
    "artefacts": lambda t, place: fault_trust.flip_artefacts(t.bundle, place, t.tries, t.draw),
    "outside": lambda t, place: fault_trust.name_outside(t.bundle, place),
    "keys": lambda _, place: fault_trust.bad_keys(place),
    "checkpoints": lambda _, place: fault_trust.hostile_checkpoints(place),
    "bombs": _bombs,
    "not-numbers": lambda t, place: fault_files.not_numbers(t.bundle, place),
    "names": lambda t, place: fault_files.odd_names(t.bundle, place),
    "damage": lambda t, place: fault_files.damage_files(place, t.tries, t.draw),
}


def main(arguments: Sequence[str]) -> int:
    """Try every fault; exit code 1 if something was lost."""
    parser = Parser("python bench/faults.py", "Try faults on purpose, and count what comes of them.", EPILOG)
    parser.add_argument("--only", action="append", choices=STEPS, metavar="STEP", help=f"try only this; repeatable: "
                        f"{', '.join(STEPS)}. Other rows of --json stay")  # fmt: skip
    parser.add_argument("--kills", type=positive, default=100, help="of detect, of build, of a bundle that is put in "
                        "place (default: %(default)s each)")  # fmt: skip
    parser.add_argument("--pairs", type=positive, default=10, help="of builds at once (default: %(default)s)")
    parser.add_argument("--tries", type=positive, default=300, help="of each random damage (default: %(default)s)")
    parser.add_argument("--seed", type=positive, default=1, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="F", help="write counts and environment to this file")
    parser.add_argument("--markdown", type=Path, metavar="F", help="write the table of counts to this file")
    options = parser.parse_args(arguments)

    check_output(options.json, options.markdown)
    facts = {"seed": options.seed, "environment": describe_environment()}
    rows: list[dict[str, Any]] = []
    if options.only and options.json and options.json.exists():
        rows = [row for row in _earlier(options.json, facts) if row["step"] not in options.only]
    lost = False
    for step, fault in _try(options):
        row = {"step": step, **fault.document()}
        rows = sorted([*rows, row], key=lambda row: list(STEPS).index(row["step"]))
        print(fault_table([row]).splitlines()[-1], flush=True)
        for loss in fault.losses[:5]:
            lost = True
            warn(loss)
        if options.json:  # as far as it has come
            write_json(options.json, {**facts, "faults": rows})
    if options.markdown:
        with replacing(options.markdown) as temporary:
            temporary.write_text(fault_table(rows), "utf-8")
    return EXIT_CHECK_FAILED if lost else EXIT_DONE


def _earlier(path: Path, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a report, to which others are to be added; UsageError if they were counted otherwise than these."""
    try:
        document = json.loads(path.read_bytes())
        rows: list[dict[str, Any]] = [row for row in document["faults"] if row["step"] in STEPS]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no report of faults that --only could add to: name another file") from error
    if {name: document.get(name) for name in facts} != facts:
        raise UsageError(
            f"{path} was written with another --seed, other libraries, or on another machine: name another file"
        )
    return rows


def _try(options: argparse.Namespace) -> Iterator[tuple[str, Fault]]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trial = Trial(
            folder / "tiny.safetensors",
            folder / "tiny.gconet",
            options.kills,
            options.pairs,
            options.tries,
            random.Random(options.seed),
        )
        fault_commands.write_tiny_checkpoint(trial.checkpoint)
        fault_commands.must_succeed(fault_commands.build_words(trial.checkpoint, trial.bundle))
        for step in dict.fromkeys(options.only or STEPS):
            place = folder / step
            place.mkdir()
            found = STEPS[step](trial, place)
            for fault in found if isinstance(found, list) else [found]:
                yield step, fault


if __name__ == "__main__":
    sys.exit(run(main))
