"""Pointers and sizes from C as numpy's arrays and Python's strings, without a copy; what cannot be is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from gconet.runtime.errors import PhotoError, UsageError
from gconet.runtime.host_arrays import HostBuffer, take_out
from gconet.runtime.photos import MAX_PIXELS
from gconet.runtime.preprocess import FloatArray, Photo

MAX_COUNT = 1_000_000  # photos in a call: more is a negative number that became a size_t, or memory that was not set
MAX_STRIDE = 1 << 31  # bytes in a row


class Pointers:
    """Reads and writes the caller's memory by an `FFI` of cffi that knows gconet.h."""

    def __init__(self, ffi: Any) -> None:
        self._ffi = ffi

    def text(self, pointer: Any) -> str:
        """A string that ends with a 0, such as a path; "" for NULL."""
        return os.fsdecode(self._ffi.string(pointer)) if pointer else ""

    def write_text(self, pointer: Any, text: str, room: int) -> None:
        """Write UTF-8 and a closing 0 into `room` bytes; what does not fit is cut off between characters."""
        whole = text.encode("utf-8", "backslashreplace")
        kept = whole[: room - 1].decode("utf-8", "ignore").encode()
        self._ffi.memmove(pointer, kept + b"\0", len(kept) + 1)

    def count(self, count: int) -> int:
        """A number of photos; raises UsageError for one that cannot be meant."""
        if not 1 <= count <= MAX_COUNT:
            raise UsageError(
                "a group needs at least one photo"
                if count == 0
                else f"count is {count}: a call takes up to {MAX_COUNT} photos"
            )
        return count

    def floats(self, pointer: Any, name: str, shape: tuple[int, ...]) -> HostBuffer:
        """Memory for an array of that shape."""
        if not pointer:
            raise UsageError(f"{name} is NULL")
        return HostBuffer(int(self._ffi.cast("uintptr_t", pointer)), shape)

    def photos(self, photos: Any, count: int) -> list[Photo]:
        """The `gconet_photo`s as (H, W, 3) arrays; raises PhotoError for one that cannot be."""
        return [self._photo(photos[index], index) for index in range(self.count(count))]

    def maps(self, maps: Any, photos: Sequence[Photo]) -> list[FloatArray]:
        """Room for a map of each photo, at its size."""
        rooms = []
        for index, photo in enumerate(photos):
            name, shape = f"maps[{index}]", photo.shape[:2]
            rooms.append(take_out(self.floats(maps[index], name, shape), name, shape).array)
        return rooms

    def _photo(self, photo: Any, index: int) -> Photo:
        height, width, stride = photo.height, photo.width, photo.row_stride or 3 * photo.width
        if not photo.rgb:
            raise UsageError(f"photos[{index}].rgb is NULL")
        if not height or not width or height * width > MAX_PIXELS:
            raise PhotoError(f"photos[{index}] has {width}×{height} pixels: from 1 to {MAX_PIXELS} are wanted")
        if not 3 * width <= stride <= MAX_STRIDE:
            raise UsageError(
                f"photos[{index}].row_stride is {stride}: a row of {width} pixels has {3 * width} bytes, "
                "and the next one lies further on"
            )
        memory = self._ffi.buffer(photo.rgb, (height - 1) * stride + 3 * width)
        pixels: Photo = np.ndarray((height, width, 3), np.uint8, memory, 0, (stride, 3, 1))
        pixels.flags.writeable = False
        return pixels
