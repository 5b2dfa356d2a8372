"""Reaching Ray, or starting it on this machine, and sharing out its cores."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gconet.runtime.errors import TargetError, UsageError

HERE = "local"  # in Ray's words: start it on this machine
ADDRESS = re.compile(r"(?:ray://)?(?P<host>\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
REACH_SECONDS = 5  # for a machine to answer at all; Ray itself would try for minutes
OBJECT_STORE_BYTES = 128 * 2**20  # only paths pass through it; Ray would take 30 % of the memory

# Ray's own words stay out of a command's output; nothing is reported to its makers. Set before it is imported.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# More cores on one group bring less each, more workers take memory each: about 0.3 GB with the paper's network.
THREADS = 4


def ray_address(text: str) -> str:
    """Argument type: where Ray is; "" for where `connected` looks by itself."""
    if text not in ("", HERE, "auto") and not ADDRESS.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HOST:PORT, ray://HOST:PORT or auto (without an address, name photos before --ray)"
        )
    return text


@contextlib.contextmanager
def connected(address: str | None, cores: int | None = None) -> Iterator[Any]:
    """The module `ray`, connected; a connection that is there already is used, and left.

    Parameters
    ----------
    address : as for `ray.init`; None for `RAY_ADDRESS`, and where that is not set a Ray of our own on this machine.
    cores : of a Ray of our own; None for all of the machine's.

    Raises
    ------
    TargetError
        If Ray is not installed, does not start, or cannot be reached.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS") or HERE
    if address != HERE:
        _reach(address)
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # each takes 40 seconds
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise TargetError(f"--ray needs {error.name or 'ray'}: pip install 'gconet-deploy[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    own = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        with _silenced(), _interrupted_later():
            ray.init(address, logging_level="CRITICAL", log_to_driver=False, **(own if address == HERE else {}))
    except Exception as error:  # its own classes, those of sockets, and plain Exception where it is slow to start
        raise TargetError(_unreachable(address, last_line(error))) from error
    except KeyboardInterrupt:
        ray.shutdown()
        raise
    try:
        yield ray
    finally:
        ray.shutdown()


def share_out(
    machines: Sequence[Mapping[str, float]], gpu: bool, workers: int | None, threads: int | None
) -> tuple[int, int]:
    """How many workers, and with how many threads each.

    Parameters
    ----------
    machines : the resources of each, as Ray names them: CPU, GPU.
    gpu : whether each worker needs a GPU.
    workers, threads : as the user wants them; None for what fits: as many workers as there are GPUs, or sets of up to
        four cores.

    Raises
    ------
    UsageError
        If there is no room for them.
    """
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    if threads is None:
        wanted = 1 if gpu else sum(cores) // workers if workers else THREADS
        threads = max(1, min(wanted, max(cores, default=1)))
    room = sum(
        min(count // threads, int(machine.get("GPU", 0))) if gpu else count // threads
        for count, machine in zip(cores, machines, strict=True)
    )
    if not room or (workers or 0) > room:
        gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
        raise UsageError(
            f"no room for {workers or 'any'} workers of {threads} threads{' and a GPU' if gpu else ''} each: Ray has "
            f"{sum(cores)} cores{f' and {gpus} GPUs' if gpu else ''} on {len(machines)} machines"
            + (f"; pass --workers {room}" if room else "; pass --threads 1" if threads > 1 else "")
        )
    return workers or room, threads


def machines(ray: Any) -> list[Mapping[str, float]]:
    """Resources of every machine that is up."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def last_line(error: BaseException) -> str:
    """The reason; the lines before it are Ray's own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """The first Ctrl-C waits for the end of the block: a Ray that is half started takes the process down with it."""
    asked = threading.Event()

    def note(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    earlier = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
    if asked.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep what Ray's C++ code says while it connects off standard error: that it was told to say little, for one."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _reach(address: str) -> None:
    match = ADDRESS.fullmatch(address)
    if match is None:  # auto: Ray looks for itself, and finds out at once
        return
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), REACH_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TargetError(_unreachable(address, reason)) from error


def _unreachable(address: str, reason: str) -> str:
    if address == HERE:
        return f"Ray does not start on this machine ({reason}): try again, perhaps when the machine is less busy"
    return (
        f"no Ray at {address} ({reason}): look at `ray status` there, start it with `ray start --head`, or leave the "
        "address out to use this machine"
    )
