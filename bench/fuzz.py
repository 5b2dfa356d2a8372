"""Fuzz whatever reads files that others made, guided by coverage: `python bench/fuzz.py --minutes 5 --json F`.

Needs atheris (extra `fuzz`). Each reader gets a process, a corpus that starts with files it accepts, and a limit on
memory. Bytes are read or refused by an error of ours; anything else ends the process and is kept below --out.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import argparse
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from gconet.bench.output_files import check_output
from gconet.engines.installed import installed_version
from gconet.runtime.atomic import cannot_write
from gconet.runtime.command_line import EXIT_CHECK_FAILED, EXIT_DONE, Parser, positive, positive_float, run, write_json
from gconet.runtime.errors import TargetError, UsageError

EPILOG = """\
examples:
  python bench/fuzz.py --target photo --minutes 60
  python bench/fuzz.py --minutes 5 --json fuzz.json            every reader, five minutes each

A crash is a file that the reader neither accepts nor refuses: `python bench/fuzz.py --target T --again FILE` shows why.

Exit codes: 0 nothing was found; 1 a crash, a hang, or more memory than allowed; 2 bad input."""
TARGETS = ("manifest", "bundle", "signature", "key", "safetensors", "pth", "photo", "calibration", "consensus")
MAX_PIXELS = 2**20  # of photos here: what a large one costs is known, and tested
INSTRUMENTED = ["gconet", "json", "PIL", "zipfile"]
HANG_SECONDS = 20
LIBRARIES = "atheris", "cryptography", "safetensors"  # that fuzz and are fuzzed, besides those of every report
LONGEST = 16384  # bytes of an input


def main(arguments: Sequence[str]) -> int:
    """Fuzz the readers one after the other; exit code 1 if one fails."""
    parser = Parser("python bench/fuzz.py", "Fuzz the readers of files that others made.", EPILOG)
    parser.add_argument("--target", action="append", choices=TARGETS, metavar="T",
                        help=f"reader: {', '.join(TARGETS)}; repeatable (default: all)")  # fmt: skip
    parser.add_argument("--minutes", type=positive_float, default=5.0, help="for each (default: %(default)s)")
    parser.add_argument("--memory-mb", type=positive, default=2048, help="most for one process (default: %(default)s)")
    parser.add_argument("--seed", type=positive, default=1, help="of the fuzzer (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, help="folder of inputs that reached something new, to go on from "
                        "(default: none is kept)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="for crashes (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="F", help="write counts to this file")
    parser.add_argument("--again", type=Path, metavar="FILE", help="read this file with --target, and nothing else")
    parser.add_argument("--child", nargs=2, metavar=("COUNTS", "CORPUS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = options.target or list(TARGETS)
    if (options.again or options.child) and len(names) != 1:
        parser.error("--again and --child need one --target")
    if options.again:
        return _again(names[0], options.again)
    if options.child:
        _fuzz(names[0], Path(options.child[0]), Path(options.child[1]), options)
    try:
        import atheris  # noqa: F401 (the processes need it)
    except ImportError as error:
        raise TargetError(f"fuzzing needs atheris ({error}): pip install 'gconet-deploy[fuzz]'") from error

    with cannot_write(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
    check_output(options.json)
    rows = []
    for name in names:
        rows.append(row := _run_child(name, options))
        counts = f"{row['runs']} inputs, {row['accepted']} accepted, {row['refused']} refused"
        print(f"{name}: {counts}, {len(row['crashes'])} crashes; {row['peak_rss_mb']} MB at most", flush=True)
    if options.json:
        from gconet.bench.environment import describe_environment

        environment = describe_environment()
        environment["libraries"] |= {name: installed_version(name) for name in LIBRARIES}
        facts = {"minutes_each": options.minutes, "seed": options.seed, "environment": environment}
        write_json(options.json, {"targets": rows, **facts})
    return EXIT_CHECK_FAILED if any(row["crashes"] for row in rows) else EXIT_DONE


def _run_child(name: str, options: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        counts, corpus = Path(scratch, "counts"), (options.corpus or Path(scratch)) / name
        corpus.mkdir(parents=True, exist_ok=True)
        counts.write_bytes(bytes(16))
        words = [sys.executable, __file__, "--target", name, "--minutes", str(options.minutes), "--memory-mb",
                 str(options.memory_mb), "--seed", str(options.seed), "--out", str(options.out)]  # fmt: skip
        words += ["--child", str(counts), str(corpus)]
        # By way of a shell: Linux counts what the process that starts another once held into the other's peak.
        words = ["sh", "-c", '"$@"; exit $?', "sh", *words]
        start = time.monotonic()
        done = _run(words)
        seconds = time.monotonic() - start
        accepted, refused = (int.from_bytes(counts.read_bytes()[at : at + 8], sys.byteorder) for at in (0, 8))
    crashes = re.findall(r"Test unit written to (\S+)", done.stderr)
    if done.returncode and not crashes:
        raise TargetError(f"fuzzing {name} failed: {(done.stderr.strip() or 'it was killed').splitlines()[-1]}")
    statistics = dict(re.findall(r"^stat::(\w+):\s*(\d+)", done.stderr, re.MULTILINE))
    covered = re.findall(r"cov: (\d+)", done.stderr)
    return {
        "target": name,
        "runs": int(statistics.get("number_of_executed_units", accepted + refused)),
        "seconds": round(seconds),
        "accepted": accepted,
        "refused": refused,
        "crashes": crashes,
        "edges_covered": int(covered[-1]) if covered else 0,
        "peak_rss_mb": round(int(statistics.get("peak_rss_mb", 0)) * 2**20 / 1e6),  # libFuzzer's are of 2²⁰ bytes
    }


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a process group of its own, of which nothing is left when this is interrupted."""
    options: Any = {"text": True, "errors": "replace", "start_new_session": True}
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options) as process:
        try:
            _, error = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(words, process.returncode, "", error)


def _again(name: str, path: Path) -> int:
    from gconet.bench.fuzz_targets import FUZZ_TARGETS, accepts

    if not path.is_file():
        raise UsageError(f"no file at {path}")
    with tempfile.TemporaryDirectory() as folder:
        print("accepted" if accepts(FUZZ_TARGETS[name], path.read_bytes(), Path(folder)) else "refused")
    return EXIT_DONE


def _fuzz(name: str, counts: Path, corpus: Path, options: Any) -> None:
    """Run libFuzzer in this process, which ends with it."""
    import atheris
    import numpy as np

    with atheris.instrument_imports(include=INSTRUMENTED):
        from gconet.bench.fuzz_targets import FUZZ_TARGETS, accepts
        from gconet.runtime import photos

    photos.MAX_PIXELS = MAX_PIXELS
    target, tally = FUZZ_TARGETS[name], np.memmap(counts, np.int64, "r+")
    scratch = counts.parent / "files"
    scratch.mkdir()
    for index, seed in enumerate(target.seeds(scratch)):
        (corpus / f"seed-{index}").write_bytes(seed)

    def one_input(data: bytes) -> None:
        tally[0 if accepts(target, data, scratch) else 1] += 1

    flags = {
        "max_total_time": max(1, round(60 * options.minutes)),  # 0 would be for ever
        "rss_limit_mb": options.memory_mb,
        "timeout": HANG_SECONDS,
        "max_len": LONGEST,
        "seed": options.seed,
        "print_final_stats": 1,
        "artifact_prefix": f"{options.out}/{name}-",
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in flags.items()), str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(run(main))
