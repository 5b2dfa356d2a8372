"""A folder that replaces another in one step, and what killed writers of such folders left."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from gconet.runtime.atomic import PARTIAL

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # by a folder, or a link to one


@contextlib.contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, gone when the block ends; it is locked, so that others see that its maker lives.

    Folders that makers of the same `out` left when they were killed are removed first. Raises OSError.
    """
    for leftover in out.parent.glob(f".{_escaped(out.name)}{PARTIAL}*"):
        with _lock(leftover) as free:
            if free:
                shutil.rmtree(leftover, ignore_errors=True)
    staging, unlocked = (out.with_name(f".{out.name}{kind}{os.getpid()}") for kind in (PARTIAL, ".new-"))
    for earlier in (staging, unlocked):  # of a killed process with the same number
        _remove(earlier)
    unlocked.mkdir(parents=True)
    try:
        with _lock(unlocked):
            unlocked.rename(staging)  # only now can others take it for a leftover
            yield staging
    finally:
        _remove(unlocked)
        _remove(staging)


def put_in_place(staging: Path, out: Path) -> None:
    """Give a complete folder its name. What was there is in `staging` afterwards; of two who do so, the last one wins.

    On Linux there is no moment without a folder of that name. Elsewhere there is, between two renames. Raises OSError.
    """
    while True:
        try:
            staging.rename(out)
            return
        except OSError as error:
            if error.errno not in OCCUPIED:
                raise
        try:
            if not _exchange(staging, out):
                _step_aside(staging, out)
            return
        except FileNotFoundError:
            if not staging.exists():
                raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders' names in one step; False where the system cannot."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:  # glibc before 2.28
        return False
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # file systems without it, such as NFS
        return False
    raise OSError(number, os.strerror(number), str(other))


def _step_aside(staging: Path, out: Path) -> None:
    """The same in two steps; what was there comes back if the second one fails."""
    earlier = out.with_name(f".{out.name}.earlier-{os.getpid()}")
    out.rename(earlier)
    try:
        staging.rename(out)
    except OSError:
        if not out.exists():
            earlier.rename(out)
        raise
    finally:
        _remove(earlier)


def _remove(path: Path) -> None:
    """Remove a folder, or a link to one but not what it leads to; as much as can be."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock, which goes with the process; False if another holds it, or there are no locks here."""
    descriptor = -1
    try:
        try:
            if fcntl is None:
                raise OSError
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:  # held, vanished, or on a file system without locks of folders
            free = False
        yield free
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _escaped(name: str) -> str:
    """A name as `glob` takes it literally."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
