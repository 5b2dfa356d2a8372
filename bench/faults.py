"""Faults on purpose, and what comes of them: `python bench/faults.py --json F --markdown F`.

Commands are killed at random moments, disks are full, files are damaged or hostile. A loss is what must never happen:
half a file under its final name, a traceback, damage that is accepted, a repetition that does not complete.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence

from gconet.bench import fault_builds, fault_commands, fault_files, fault_trust
from gconet.bench.environment import describe_environment
from gconet.bench.fault_rows import Fault, fault_table
from gconet.runtime.atomic import replacing
from gconet.runtime.command_line import EXIT_CHECK_FAILED, EXIT_DONE, Parser, positive, run, warn, write_json

EPILOG = """\
examples:
  python bench/faults.py --json faults.json --markdown faults.md        a quarter of an hour
  python bench/faults.py --kills 5 --tries 20                           a minute or two

A network of a few thousand weights is built for it, so that commands are over soon. Linux only.

Exit codes: 0 nothing was lost; 1 something was, and is told; 2 bad input."""
FILE_LIMITS = (0, 100, 1000, 4000)  # bytes
MAX_PEAK_MB = 1000  # of reading small files that claim to be large


def main(arguments: Sequence[str]) -> int:
    """Try every fault; exit code 1 if something was lost."""
    parser = Parser("python bench/faults.py", "Try faults on purpose, and count what comes of them.", EPILOG)
    parser.add_argument("--kills", type=positive, default=100, help="of detect, of build, of a bundle that is put in "
                        "place (default: %(default)s each)")  # fmt: skip
    parser.add_argument("--pairs", type=positive, default=10, help="of builds at once (default: %(default)s)")
    parser.add_argument("--tries", type=positive, default=300, help="of each random damage (default: %(default)s)")
    parser.add_argument("--seed", type=positive, default=1, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="F", help="write counts and environment to this file")
    parser.add_argument("--markdown", type=Path, metavar="F", help="write the table of the README to this file")
    options = parser.parse_args(arguments)

    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for fault in try_all(Path(scratch), options.kills, options.pairs, options.tries, random.Random(options.seed)):
            rows.append(fault.document())
            print(fault_table([fault.document()]).splitlines()[-1], flush=True)
            for loss in fault.losses[:5]:
                warn(loss)
            if options.json:  # as far as it has come
                write_json(options.json, {"seed": options.seed, "faults": rows, "environment": describe_environment()})
    if options.markdown:
        with replacing(options.markdown) as temporary:
            temporary.write_text(fault_table(rows), "utf-8")
    return EXIT_CHECK_FAILED if any(row["lost"] for row in rows) else EXIT_DONE


def try_all(folder: Path, kills: int, pairs: int, tries: int, draw: random.Random) -> Iterator[Fault]:
    """Every fault, one after the other, each in a folder of its own."""
    checkpoint, bundle = folder / "tiny.safetensors", folder / "tiny.gconet"
    fault_commands.write_tiny_checkpoint(checkpoint)
    fault_commands.must_succeed(fault_commands.build_words(checkpoint, bundle))

    def bombs(place: Path) -> Fault:
        fault, peak = fault_files.bombs(bundle, place)
        fault.name += f" (peak memory {peak:.0f} MB)"
        if peak > MAX_PEAK_MB:
            fault.lose(f"{peak:.0f} MB for small files")
        return fault

    steps: list[Callable[[Path], Fault | list[Fault]]] = [
        lambda place: fault_trust.tamper_signed(bundle, place, tries, draw),
        lambda place: fault_trust.flip_artefacts(bundle, place, tries, draw),
        lambda place: fault_trust.name_outside(bundle, place),
        lambda place: fault_trust.hostile_checkpoints(place),
        lambda place: fault_trust.bad_keys(place),
        bombs,
        lambda place: fault_files.not_numbers(bundle, place),
        lambda place: fault_files.odd_names(bundle, place),
        lambda place: fault_files.damage_files(place, tries, draw),
        lambda place: fault_commands.write_to_read_only(bundle, checkpoint, place),
        lambda place: fault_commands.fill_disk(bundle, checkpoint, place, FILE_LIMITS),
        lambda place: fault_commands.kill_detect(bundle, place, kills, draw),
        lambda place: fault_builds.kill_publishing(place, kills, draw),
        lambda place: fault_builds.kill_build(checkpoint, place, kills, draw),
        lambda place: fault_builds.build_twice(checkpoint, place, pairs),
    ]
    for number, step in enumerate(steps):
        place = folder / f"{number:02}"
        place.mkdir()
        found = step(place)
        yield from found if isinstance(found, list) else [found]


if __name__ == "__main__":
    sys.exit(run(main))
