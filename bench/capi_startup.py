"""What it costs to start from C: `python bench/capi_startup.py --bundle B`.

A C program and a Python program do the same in processes of their own, in turn: load a bundle, then detect the same
group twice. Times are taken from the moment the process is asked for.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import os
import shlex
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gconet.bench.environment import describe_bundle, describe_environment
from gconet.bench.output_files import check_output
from gconet.runtime.bundle import open_bundle
from gconet.runtime.capi.build import build, source_folders
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, run, write_json
from gconet.runtime.errors import TargetError, UsageError

EPILOG = """\
example:
  python bench/capi_startup.py --bundle build/gconet.gconet --group 2 --rounds 9 --json startup.json

started: the program's first line. loaded: the bundle is loaded; for C this starts Python, too. first: the maps of the
first group are there, which compiles the engine. second: those of the same group again."""

HEIGHT, WIDTH = 480, 640
STEPS = ("started", "loaded", "first", "second")

C_PROGRAM = """\
#include <gconet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static void now(void) {
    const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID};
    for (int which = 0; which < 2; which++) {
        struct timespec time;
        clock_gettime(clocks[which], &time);
        printf("%lld\\n", time.tv_sec * 1000000000LL + time.tv_nsec);
    }
}

int main(int argc, char **argv) {
    now();
    if (argc != 5) return 2;
    size_t count = (size_t)atoi(argv[2]), height = (size_t)atoi(argv[3]), width = (size_t)atoi(argv[4]);
    gconet_photo *photos = calloc(count, sizeof *photos);
    float **maps = calloc(count, sizeof *maps);
    for (size_t index = 0; index < count; index++) {
        uint8_t *pixels = malloc(height * width * 3);
        for (size_t byte = 0; byte < height * width * 3; byte++) pixels[byte] = (uint8_t)(byte * (index + 1));
        photos[index] = (gconet_photo){pixels, height, width, 0};
        maps[index] = malloc(height * width * sizeof **maps);
    }
    gconet_detector *detector;
    gconet_status status = gconet_load(argv[1], NULL, &detector);
    now();
    for (int time = 0; time < 2 && status == GCONET_OK; time++) {
        status = gconet_detect(detector, photos, count, maps);
        now();
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%ld\\n", usage.ru_maxrss);
    if (status != GCONET_OK) fprintf(stderr, "%s\\n", gconet_last_error());
    return (int)status;
}
"""

PYTHON_PROGRAM = """\
import time
def now():
    print(time.monotonic_ns(), time.process_time_ns())
now()
import sys
import numpy as np
import gconet.runtime as gr
count, height, width = map(int, sys.argv[2:])
values = np.arange(height * width * 3)
photos = [(values * (index + 1)).astype(np.uint8).reshape(height, width, 3) for index in range(count)]
detector = gr.load(sys.argv[1])
now()
for _ in range(2):
    detector.detect(photos)
    now()
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@dataclass(frozen=True)
class Start:
    """One run of a program.

    Attributes
    ----------
    seconds : from asking for the process, by step.
    cpu_seconds : of the process, by step, which others on the machine disturb less.
    peak_rss_mb : of the process, MB (10⁶ bytes).
    """

    seconds: Mapping[str, float]
    cpu_seconds: Mapping[str, float]
    peak_rss_mb: float


def measure(command: Sequence[str]) -> Start:
    """Run a program that prints the clock at each step; raises TargetError if it fails."""
    asked = time.monotonic_ns()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(
            f"{Path(command[0]).name} fails with exit code {done.returncode}: {done.stderr.strip()[-300:]}"
        )
    *clocks, peak = done.stdout.split()
    seconds = {step: (int(clock) - asked) / 1e9 for step, clock in zip(STEPS, clocks[::2], strict=True)}
    cpu_seconds = {step: int(clock) / 1e9 for step, clock in zip(STEPS, clocks[1::2], strict=True)}
    return Start(seconds, cpu_seconds, int(peak) * 1024 / 1e6)  # told in KiB


def environment() -> dict[str, str]:
    """That of this process, with the packages it has found; the library has noted them itself."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(source_folders())}


def main(arguments: Sequence[str]) -> int:
    """Build the library, run both programs in turn, and print medians; errors as of `build` and `measure`."""
    parser = Parser("capi_startup.py", "What it costs to start from C, beside Python.", EPILOG)
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to run (default: %(default)s)")
    parser.add_argument("--group", type=positive, default=2, metavar="N", help="photos (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=9, help="runs of each program (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures")
    options = parser.parse_args(arguments)
    bundle = open_bundle(options.bundle)
    manifest = bundle.manifest
    check_output(options.json)
    if shutil.which("cc") is None:
        raise UsageError("no C compiler: apt-get install gcc")
    details = [options.bundle, str(options.group), str(HEIGHT), str(WIDTH)]
    with tempfile.TemporaryDirectory() as folder:
        program = _compile(Path(folder))
        commands = {"C": [str(program), *details], "Python": [sys.executable, "-c", PYTHON_PROGRAM, *details]}
        starts: dict[str, list[Start]] = {name: [] for name in commands}
        for round_ in range(options.rounds + 1):
            for name, command in commands.items():
                start = measure(command)
                if round_:  # the first reads files that are in memory afterwards
                    starts[name].append(start)
    medians = {name: _medians(found) for name, found in starts.items()}
    for name, figures in medians.items():
        print(f"{name:<7}" + "  ".join(
            f"{step} {figures[f'{step}_s']:.2f} s ({figures[f'{step}_cpu_s']:.2f} s CPU)" for step in STEPS)
              + f"  peak {figures['peak_rss_mb']:.0f} MB")  # fmt: skip
    if options.json:
        write_json(options.json, {
            "target": manifest.target, "precision": manifest.precision, "group": options.group,
            "photo": [HEIGHT, WIDTH], "rounds": options.rounds, "medians": medians,
            "command": shlex.join(["python", "bench/capi_startup.py", "--bundle", Path(options.bundle).name,
                                   "--group", str(options.group), "--rounds", str(options.rounds)]),
            "bundle": describe_bundle(bundle), "environment": describe_environment(),
        })  # fmt: skip
    return EXIT_DONE


def _compile(folder: Path) -> Path:
    files, program = build(folder / "capi"), folder / "start"
    source = folder / "start.c"
    source.write_text(C_PROGRAM, "utf-8")
    libraries = files["library"].parent
    done = subprocess.run(
        ["cc", "-O2", f"-I{files['header'].parent}", source, "-o", program, f"-L{libraries}", "-lgconet",
         f"-Wl,-rpath,{libraries}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise TargetError(f"cc cannot compile the program: {done.stderr.strip()[-300:]}")
    return program


def _medians(starts: Sequence[Start]) -> dict[str, float]:
    steps = {f"{step}_s": statistics.median(start.seconds[step] for start in starts) for step in STEPS}
    cpu = {f"{step}_cpu_s": statistics.median(start.cpu_seconds[step] for start in starts) for step in STEPS}
    return {**steps, **cpu, "peak_rss_mb": statistics.median(start.peak_rss_mb for start in starts)}


if __name__ == "__main__":
    sys.exit(run(main))
