"""OpenVINO's reports to its makers, which its import sends: not from here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

REPORTER = "openvino_telemetry"  # a package of its own; where it is missing, OpenVINO has one in its place that is mute


@contextlib.contextmanager
def unreported() -> Iterator[None]:
    """Import OpenVINO in the block without a word to anybody.

    To send its report it would fork this process, which may be a C program of many threads, wait for up to three
    seconds where the network does not answer, and keep a number for this user in the home folder. A process that has
    imported it, or its reporter, by itself has its own way.
    """
    if REPORTER in sys.modules:
        yield
        return
    sys.modules[REPORTER] = None  # type: ignore[assignment] # so that importing it fails, as Python defines
    try:
        yield
    finally:
        sys.modules.pop(REPORTER, None)
