"""Photos of a group as a caller gives them, on their way into an engine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gconet.runtime.errors import UsageError
from gconet.runtime.photos import as_array
from gconet.runtime.preprocess import FloatArray, Photo

Photos = Sequence[str | os.PathLike[str] | Photo]


class PreparedGroup(NamedTuple):
    """A group on its way: network input or output (N, channels, S, S), and height and width of its photos.

    A group that is done in blocks has no values, and its shapes are known when its photos have been read.
    """

    photos: Photos
    values: FloatArray | None
    shapes: list[tuple[int, int]]


def check_list(photos: Photos) -> None:
    """Raise UsageError for a path in place of a list of them."""
    if isinstance(photos, str | os.PathLike):
        raise UsageError(f"a group is a list of photos, got the one path {photos}")


def arrays(photos: Photos, shapes: list[tuple[int, int]]) -> Iterator[Photo]:
    """Read photos one by one; their heights and widths are put into `shapes`."""
    for index, photo in enumerate(photos):
        array = as_array(photo, index)
        shapes.append((array.shape[0], array.shape[1]))
        yield array
