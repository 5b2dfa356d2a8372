"""Arrays of a group's photos that are kept in temporary files: memory stays flat however many photos there are.

They are read back with plain reads, not mapped: pages of a mapped file count as the process's own.
"""

from __future__ import annotations

import tempfile

import numpy as np

from gconet.runtime.errors import UsageError
from gconet.runtime.paths import reason
from gconet.runtime.preprocess import FloatArray


class Column:
    """One array of each photo, all of a shape, appended in blocks and read back in blocks.

    Parameters
    ----------
    dtype : as stored. float16 takes half the room of float32: each photo's array is divided by a power of two first,
        so that its largest value is at most 1 and 11 bits of every large value are kept.
    """

    def __init__(self, shape: tuple[int, ...], dtype: type[np.float32 | np.float16]) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._scales = np.ones(0, np.float32)  # powers of two, of each photo
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the object: the file has no name)

    def __len__(self) -> int:
        """Photos so far."""
        return len(self._scales)

    def append(self, block: FloatArray) -> None:
        """Add the arrays (n, …) of n photos.

        Raises
        ------
        UsageError
            If there is no room on the disk.
        """
        scales = np.ones(len(block), np.float32)
        if self._dtype == np.float16:
            peaks = np.abs(block.reshape(len(block), -1)).max(axis=1)
            scales = np.exp2(np.ceil(np.log2(np.maximum(peaks, np.finfo(np.float32).tiny)))).astype(np.float32)
            block = block / self._spread(scales)
        try:
            self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(block, self._dtype).data)
            self._file.flush()
        except OSError as error:
            raise UsageError(
                f"no room for the features of a large group in {tempfile.gettempdir()} ({reason(error)}): "
                "free some, or set TMPDIR to a folder on a larger disk"
            ) from error
        self._scales = np.concatenate([self._scales, scales])

    def read(self, start: int, stop: int) -> FloatArray:
        """The arrays of photos `start` to `stop`, in float32."""
        count = min(stop, len(self)) - start
        size = int(np.prod(self._shape))
        self._file.seek(start * size * self._dtype.itemsize)
        block = np.fromfile(self._file, self._dtype, count * size).reshape(count, *self._shape)
        if self._dtype == np.float16:
            return block.astype(np.float32) * self._spread(self._scales[start : start + count])
        return block

    def _spread(self, scales: FloatArray) -> FloatArray:
        return scales.reshape(-1, *(1 for _ in self._shape))
