"""Files that are complete or absent."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gconet.runtime.errors import UsageError
from gconet.runtime.paths import reason

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})  # write() fails with these and no name

PARTIAL = ".partial-"  # and the number of the process, in the names of temporary files
LONGEST = 220  # bytes of a name that leave room for that: file systems take 255
_calls = itertools.count()  # threads of a process may write the same file


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Folders above are made as needed. Errors of the block that do not concern the temporary file pass through.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    if not path.name:
        raise UsageError(f"cannot write {path}: it is a folder, name a file")
    temporary = path.with_name(f".{short(path).name}{PARTIAL}{os.getpid()}.{next(_calls)}")
    try:
        with cannot_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with cannot_fill(temporary, path):
            yield temporary
        with cannot_write(path):
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError, ValueError):  # no folder to hold it, or no possible name: reported above
            temporary.unlink(missing_ok=True)


def short(path: Path) -> Path:
    """The path itself, or with a hash for its name where that leaves no room for the names of temporary files."""
    name = os.fsencode(path.name)
    return path if len(name) <= LONGEST else path.with_name(hashlib.sha256(name).hexdigest())


def partial_of(temporary: Path) -> Path | None:
    """`short` of the path whose place a temporary file of `replacing` was to take; None if it is no such file."""
    match = re.fullmatch(rf"\.(.+){re.escape(PARTIAL)}\d+(?:\.\d+)?", temporary.name, re.DOTALL)
    return temporary.with_name(match[1]) if match else None


@contextlib.contextmanager
def cannot_write(path: Path) -> Iterator[None]:
    """Turn the block's OSError or ValueError into a UsageError that names `path`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write {path}: {reason(error)}") from error


@contextlib.contextmanager
def cannot_fill(temporary: Path, path: Path) -> Iterator[None]:
    """The same for errors that concern `temporary`, a file or what is in a folder; the block's others pass through."""
    try:
        yield
    except OSError as error:
        named = isinstance(error.filename, str | os.PathLike) and Path(error.filename).is_relative_to(temporary)
        if named or error.errno in DISK_ERRORS:
            raise UsageError(f"cannot write {path}: {reason(error)}") from error
        raise
