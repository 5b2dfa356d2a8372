"""Arrays of a group's photos that are kept in temporary files: memory stays flat however many photos there are.

They are read back with plain reads, not mapped: pages of a mapped file count as the process's own.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.errors import UsageError
from gconet.runtime.paths import reason


class Column:
    """One array of each photo, all of a shape and type, written in blocks and read back in blocks.

    Raises
    ------
    UsageError
        If there is no room on the disk, here and in `append`.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype = shape, dtype
        self._size = int(np.prod(shape))
        self._length = 0
        with _needing_room():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the object: the file has no name)

    def __len__(self) -> int:
        """Photos so far."""
        return self._length

    def append(self, block: NDArray[Any], start: int | None = None) -> None:
        """Add the arrays (n, …) of n photos, behind those of the first `start`; None for behind all.

        Raises
        ------
        UsageError
            If there is no room on the disk.
        """
        start = self._length if start is None else start
        with _needing_room():
            self._file.seek(start * self._size * self._dtype.itemsize)
            self._file.write(np.ascontiguousarray(block, self._dtype).data)
            self._file.flush()
        self._length = start + len(block)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The arrays of photos `start` to `stop`, as they were added."""
        count = min(stop, len(self)) - start
        self._file.seek(start * self._size * self._dtype.itemsize)
        return np.fromfile(self._file, self._dtype, count * self._size).reshape(count, *self._shape)


@contextlib.contextmanager
def _needing_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" in {tempfile.tempdir}" if tempfile.tempdir else ""  # None if the system found no place at all
        raise UsageError(
            f"no room for the features of a large group{where} ({reason(error)}): "
            "free some, or set TMPDIR to a folder on a larger disk"
        ) from error
