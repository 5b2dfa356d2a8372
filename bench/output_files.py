"""Files that a measurement ends in: whether they can be written is asked before it begins."""

from __future__ import annotations

from pathlib import Path

from gconet.runtime.atomic import cannot_write
from gconet.runtime.errors import UsageError


def check_output(*paths: Path | None) -> None:
    """Raise UsageError if a report could not be written afterwards; None is a report that nobody wants."""
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a folder, name a file")
        with cannot_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
