"""Arrays of a group's photos that are kept in temporary files: memory stays flat however many photos there are.

They are read back with plain reads, not mapped: pages of a mapped file count as the process's own.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.errors import UsageError
from gconet.runtime.paths import reason


class Column:
    """One array of each photo, all of a shape and type, written in blocks and read back in blocks."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype = shape, dtype
        self._size = int(np.prod(shape))
        self._length = 0
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
        try:
            self._file.seek(start * self._size * self._dtype.itemsize)
            self._file.write(np.ascontiguousarray(block, self._dtype).data)
            self._file.flush()
        except OSError as error:
            raise UsageError(
                f"no room for the features of a large group in {tempfile.gettempdir()} ({reason(error)}): "
                "free some, or set TMPDIR to a folder on a larger disk"
            ) from error
        self._length = start + len(block)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The arrays of photos `start` to `stop`, as they were added."""
        count = min(stop, len(self)) - start
        self._file.seek(start * self._size * self._dtype.itemsize)
        return np.fromfile(self._file, self._dtype, count * self._size).reshape(count, *self._shape)
