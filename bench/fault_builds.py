"""Builds of bundles that are killed, or run twice at once.

They are forked from a process that has imported everything and exported once, and leave the measurement of latency out,
which writes nothing: what is left of `gconet build` is mostly what touches files, and hundreds of builds take minutes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gconet.bench.fault_commands import Outcome, build_arguments, environment
from gconet.bench.fault_rows import Fault
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import EXIT_DONE
from gconet.runtime.errors import GconetError, TargetError

PUBLISH = """\
import sys
from pathlib import Path
from gconet.engines.bundle_writer import staged_bundle, write_manifest
from gconet.bench.fuzz_targets import example_manifest
print("ready", flush=True)
while True:
    with staged_bundle(Path(sys.argv[1])) as folder:
        write_manifest(folder, example_manifest(folder))
"""
POLL_SECONDS = 0.002


class BuildServer:
    """A process that forks builds of one bundle, and kills them when told to."""

    def __init__(self, process: subprocess.Popen[str], out: Path) -> None:
        self._process, self.out = process, out

    def build(self, copies: int = 1, kill_after: float | None = None) -> list[Outcome]:
        """Build so many times at once; with SIGKILL after some seconds, if it takes longer."""
        if self._process.stdin is None or self._process.stdout is None:
            raise TargetError("the process that builds has no pipes")
        self._process.stdin.write(json.dumps({"copies": copies, "kill_after": kill_after}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise TargetError("the process that builds has ended")
        return [Outcome(**outcome) for outcome in json.loads(answer)]


@contextmanager
def build_server(checkpoint: Path, out: Path) -> Iterator[BuildServer]:
    """Start a `BuildServer`; it has built once, and removed what it built, when this returns."""
    words = [sys.executable, __file__, str(checkpoint), str(out)]
    alone = {**environment(), "OMP_NUM_THREADS": "1"}  # a process with threads does not fork well
    with subprocess.Popen(words, env=alone, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            server = BuildServer(process, out)
            (whole,) = server.build()
            if whole.code != EXIT_DONE:
                raise TargetError(f"gconet build fails without any fault: {whole.error.strip()[-500:]}")
            shutil.rmtree(out)
            yield server
        finally:
            process.kill()


def kill_build(checkpoint: Path, folder: Path, kills: int, draw: random.Random) -> Fault:
    """Kill builds at random moments: at first with no bundle there, then over an earlier one."""
    fault = Fault("`kill -9` of `gconet build` at a random moment, then the same again")
    with build_server(checkpoint, folder / "killed" / "tiny.gconet") as server:
        (whole,) = server.build()
        shutil.rmtree(server.out)
        while fault.tries < kills and not fault.losses:
            if fault.tries * 2 >= kills and not server.out.exists():
                _complete(fault, server)
            there = server.out.exists()
            moment = draw.uniform(0.0 if draw.random() < 0.7 else 0.9, 1.02) * whole.seconds
            (outcome,) = server.build(kill_after=moment)
            if outcome.killed:
                fault.note(bundle_after(fault, server.out, there))
            elif outcome.code != EXIT_DONE:
                fault.lose(f"the build failed after a kill: {outcome.error.strip()}")
            elif fault.tries * 2 < kills:
                shutil.rmtree(server.out)  # it was faster than the kill
        _complete(fault, server)
    return fault


def _complete(fault: Fault, server: BuildServer) -> None:
    (outcome,) = server.build()
    if outcome.code != EXIT_DONE:
        fault.lose(f"the build failed after the kills: {outcome.error.strip()}")
    bundle_after(fault, server.out, True)
    _find_litter(fault, server.out)


def build_twice(checkpoint: Path, folder: Path, pairs: int) -> Fault:
    """Two builds of the same bundle at once."""
    fault = Fault("two builds of the same bundle at once")
    with build_server(checkpoint, folder / "twice" / "tiny.gconet") as server:
        for _ in range(pairs):
            outcomes = server.build(copies=2)
            codes = sorted(outcome.code for outcome in outcomes)
            fault.note("both done" if codes == [0, 0] else "one done" if 0 in codes else "none done")
            if codes != [0, 0]:
                fault.lose(f"exit codes {codes}: {' '.join(outcome.error for outcome in outcomes).strip()}")
            bundle_after(fault, server.out, True)
            _find_litter(fault, server.out)
    return fault


def kill_publishing(folder: Path, kills: int, draw: random.Random) -> Fault:
    """Kill a process that does nothing but put bundles in the place of earlier ones."""
    fault = Fault("`kill -9` while bundles take the place of earlier ones")
    out = folder / "published" / "small.gconet"
    for _ in range(kills):
        words = [sys.executable, "-c", PUBLISH, str(out)]
        with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) as process:
            there = out.exists()
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise TargetError("the process that writes bundles did not start")
            time.sleep(draw.uniform(0.0, 0.1))
            process.kill()
        fault.note(bundle_after(fault, out, there))
    return fault


def bundle_after(fault: Fault, out: Path, there: bool) -> str:
    """What a fault left of a bundle; half a one, or none where one was before, is a loss."""
    if not out.exists():
        if there:
            fault.lose("the earlier bundle is gone")
        return "no bundle yet"
    try:
        open_bundle(out)
    except GconetError as error:
        fault.lose(str(error))
    return "a whole bundle"


def _find_litter(fault: Fault, out: Path) -> None:
    if litter := sorted(path.name for path in out.parent.iterdir() if path != out):
        fault.lose(f"left beside the bundle: {', '.join(litter)}")


def serve(checkpoint: Path, out: Path) -> None:
    """What the process of a `BuildServer` does, until its input ends."""
    from gconet.engines.registry import get_target
    from gconet.export import build_engine, verified_build
    from gconet.export.graphs import make_graph
    from gconet.train.checkpoint import read_checkpoint

    verified_build._measure_latency = lambda manifest, *_: manifest
    make_graph(read_checkpoint(checkpoint), "fp32", get_target("onnxruntime"), None)  # imports what it needs
    for line in sys.stdin:
        order = json.loads(line)
        children = [_fork(build_engine, build_arguments(checkpoint, out), out) for _ in range(order["copies"])]
        print(json.dumps([_await(*child, order["kill_after"]) for child in children]), flush=True)


def _fork(command: Any, arguments: Sequence[str], out: Path) -> tuple[int, Path, float]:
    from gconet.runtime.command_line import run

    errors = out.parent.with_name(f"errors-{time.monotonic_ns()}")
    child = os.fork()
    if not child:
        nothing, said = os.open(os.devnull, os.O_WRONLY), os.open(errors, os.O_WRONLY | os.O_CREAT)
        os.dup2(nothing, 1)
        os.dup2(said, 2)
        os._exit(run(command.main, list(arguments)))
    return child, errors, time.monotonic()


def _await(child: int, errors: Path, start: float, kill_after: float | None) -> dict[str, Any]:
    killed = False
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - start
        if found:
            break
        if kill_after is not None and seconds > kill_after and not killed:
            os.kill(child, signal.SIGKILL)
            killed = True
        time.sleep(POLL_SECONDS)
    error = errors.read_text("utf-8", "replace") if errors.exists() else ""
    errors.unlink(missing_ok=True)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "error": error, "seconds": seconds, "killed": code == -signal.SIGKILL}


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
