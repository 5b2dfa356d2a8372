"""How much faster more Ray workers get through a tree of groups, and whether they write the same files.

    python bench/ray_workers.py --bundle B --json F

Whole commands are timed, Ray's start and the loading of the bundle included. Each round runs every way once, in turn.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

from gconet.bench.environment import describe_bundle, describe_environment
from gconet.bench.output_files import check_output
from gconet.bench.photo_groups import find_photos
from gconet.engines.installed import installed_version
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import EXIT_CHECK_FAILED, EXIT_DONE, Parser, positive, run, write_json
from gconet.runtime.errors import TargetError
from gconet.runtime.run_manifest import NAME

SMALLEST, LARGEST = 2, 12  # photos in a group


def group_sizes(count: int) -> list[int]:
    """Sizes of `count` groups, from 2 to 12 photos, each size as often as the others, in no order."""
    span = LARGEST - SMALLEST + 1
    return [SMALLEST + index * 7 % span for index in range(count)]


def make_tree(root: Path, photos: Sequence[Path], count: int) -> int:
    """Copy photos into `count` groups below `root`, each from where the last one stopped; how many there are in all."""
    taken = 0
    for number, size in enumerate(group_sizes(count)):
        group = root / f"{number:03}"
        group.mkdir(parents=True)
        for index in range(size):
            photo = photos[taken % len(photos)]
            shutil.copyfile(photo, group / f"{index:02}{photo.suffix}")
            taken += 1
    return taken


def time_command(tree: Path, bundle: Path, out: Path, options: Sequence[str]) -> float:
    """Seconds that `gconet detect` takes; raises TargetError with its last line if it fails."""
    command = [sys.executable, "-m", "gconet.runtime.cli", "detect", str(tree), "--bundle", str(bundle)]
    words = [*command, "--out", str(out), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # finds what this process finds
    start = time.perf_counter()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        line = (done.stderr.strip() or "it was killed").splitlines()[-1]
        raise TargetError(f"gconet detect {' '.join(options)} failed: {line}")
    return seconds


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but for the run's description."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop(NAME, None)
    return files


def main(arguments: Sequence[str]) -> int:
    """Time, compare and report; exit code 1 if workers of one thread, one or more, differ in a file."""
    parser = Parser("python bench/ray_workers.py", __doc__ or "")
    parser.add_argument("--bundle", type=Path, default=Path("build/gconet.gconet"), help="(default: %(default)s)")
    parser.add_argument("--photos", type=Path, help="folder of photos to make groups of (default: the example photos)")
    parser.add_argument("--groups", type=positive, default=60, help="of 2 to 12 photos (default: %(default)s)")
    parser.add_argument("--workers", type=positive, default=2, help="to compare with one (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=3, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file for the report")
    options = parser.parse_args(arguments)
    bundle = open_bundle(options.bundle)
    check_output(options.json)
    count = str(options.workers)
    one, more = "1 worker of 1 thread", f"{count} workers of 1 thread"
    ways: Mapping[str, Sequence[str]] = {
        one: ["--ray", "local", "--workers", "1", "--threads", "1"],
        more: ["--ray", "local", "--workers", count, "--threads", "1"],
        f"1 worker of {count} threads": ["--ray", "local", "--workers", "1", "--threads", count],
        f"no Ray, {count} threads": ["--threads", count],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        photos = make_tree(tree, find_photos(options.photos), options.groups)
        for index in range(options.rounds):
            for name, words in ways.items():
                seconds[name].append(time_command(tree, bundle.folder, Path(folder) / f"{index} {name}", words))
                print(f"round {index + 1}: {name}: {seconds[name][-1]:.1f} s", flush=True)
        maps = {name: [content(Path(folder) / f"{index} {name}") for index in range(options.rounds)] for name in ways}
    same = {name: all(files == maps[one][0] for files in found) for name, found in maps.items()}
    median = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = median[one] / median[more]
    print(f"{more}: {ratio:.2f} × as fast as {one}; files {'identical' if same[more] else 'DIFFER'}")
    report = {
        "environment": {**describe_environment(), "ray": installed_version("ray")},
        "bundle": describe_bundle(bundle),
        "tree": {"groups": options.groups, "photos": photos, "sizes": group_sizes(options.groups)},
        "ways": [
            {
                "way": name,
                "command": " ".join(["gconet", "detect", "TREE", "--bundle", "B", "--out", "OUT", *words]),
                "seconds": [round(value, 2) for value in seconds[name]],
                "median_seconds": round(median[name], 2),
                "files_identical_to_the_first": same[name],
            }
            for name, words in ways.items()
        ],
        "ratio": round(ratio, 3),
    }
    if options.json is not None:
        write_json(options.json, report)
    return EXIT_DONE if same[one] and same[more] else EXIT_CHECK_FAILED


if __name__ == "__main__":
    sys.exit(run(main))
