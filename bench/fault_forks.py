"""Commands that are forked from a process that has imported everything, so that a hundred kills take minutes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gconet.bench.fault_commands import Outcome, environment
from gconet.runtime.command_line import run
from gconet.runtime.errors import TargetError

POLL_SECONDS = 0.002
Main = Callable[[Sequence[str]], int]


class ForkServer:
    """A process that forks one command again and again, and kills it when told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def once(self, kill_after: float | None = None) -> Outcome:
        """Run the command; with SIGKILL after some seconds, if it takes longer."""
        (outcome,) = self.together(1, kill_after)
        return outcome

    def together(self, copies: int, kill_after: float | None = None) -> list[Outcome]:
        """Run the command so many times at once."""
        if self._process.stdin is None or self._process.stdout is None:
            raise TargetError("the process that forks commands has no pipes")
        self._process.stdin.write(json.dumps({"copies": copies, "kill_after": kill_after}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise TargetError("the process that forks commands has ended")
        return [Outcome(**outcome) for outcome in json.loads(answer)]


@contextmanager
def fork_server(command: str, words: Sequence[object]) -> Iterator[ForkServer]:
    """Start a `ForkServer` for `build`, `detect` or `publish` with these arguments."""
    line = [sys.executable, __file__, command, *map(str, words)]
    alone = {**environment(), "OMP_NUM_THREADS": "1"}  # a process with threads does not fork well
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, env=alone, start_new_session=True, **pipes) as process:
        try:
            yield ForkServer(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # what it forked, too, one of which would publish without end


def _build_main(words: Sequence[str]) -> Main:
    """`gconet build` without its measurement of latency, which writes nothing and takes most of the time."""
    from gconet.engines.registry import get_target
    from gconet.export import build_engine, verified_build
    from gconet.export.graphs import make_graph
    from gconet.train.checkpoint import read_checkpoint

    verified_build._measure_latency = lambda manifest, *_: manifest
    checkpoint = read_checkpoint(words[words.index("--checkpoint") + 1])
    make_graph(checkpoint, "fp32", get_target("onnxruntime"), None)  # imports what it needs
    return build_engine.main


def _detect_main(_words: Sequence[str]) -> Main:
    import onnxruntime  # noqa: F401 (only imported)

    from gconet.runtime import detect_command, onnxruntime_providers, onnxruntime_session  # noqa: F401

    return detect_command.main


def _publish_main(_words: Sequence[str]) -> Main:
    """Put bundles in the place of earlier ones, without end."""
    from gconet.bench.fuzz_bundles import example_manifest
    from gconet.engines.bundle_writer import staged_bundle, write_manifest

    def main(arguments: Sequence[str]) -> int:
        while True:
            with staged_bundle(Path(arguments[0])) as folder:
                write_manifest(folder, example_manifest(folder))

    return main


MAINS: dict[str, Callable[[Sequence[str]], Main]] = {
    "build": _build_main,
    "detect": _detect_main,
    "publish": _publish_main,
}


def serve(command: str, words: Sequence[str]) -> None:
    """What the process of a `ForkServer` does, until its input ends."""
    main = MAINS[command](words)
    for line in sys.stdin:
        order = json.loads(line)
        children = [_fork(main, words) for _ in range(order["copies"])]
        print(json.dumps([_await(*child, order["kill_after"]) for child in children]), flush=True)


def _fork(main: Main, words: Sequence[str]) -> tuple[int, int, float]:
    """The child's process number, where to read what it says, and when it started."""
    said, saying = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(saying, 2)
        os._exit(run(main, list(words)))
    os.close(saying)
    return child, said, time.monotonic()


def _await(child: int, said: int, start: float, kill_after: float | None) -> dict[str, Any]:
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
    os.set_blocking(said, False)  # others that were forked meanwhile may hold its other end
    try:
        error = os.read(said, 65536).decode("utf-8", "replace")
    except BlockingIOError:
        error = ""
    os.close(said)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "error": error, "seconds": seconds, "killed": code == -signal.SIGKILL}


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
