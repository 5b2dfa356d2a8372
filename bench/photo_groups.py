"""Groups of photos of any size to compare and time engines on; needs no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gconet.runtime.photos import find_groups, read_photo
from gconet.runtime.preprocess import FloatArray, Photo, Preprocessing, to_input

EXAMPLES = Path(__file__).resolve().parent / "examples" / "images"


def find_photos(folder: str | os.PathLike[str] | None) -> list[Path]:
    """All photos below a folder, or the example photos; errors as raised by `find_groups`."""
    return [path for group in find_groups([EXAMPLES if folder is None else folder]) for path in group.photos]


def find_group(folder: str | os.PathLike[str] | None) -> tuple[Path, ...]:
    """The photos of the largest group below a folder, or of one of example photos; errors as raised by `find_groups`.

    Photos of several groups share nothing, so that the network is undecided and its masks at 0.5 turn over at the least
    rounding: they would say more of the photos than of an engine.
    """
    return max(find_groups([EXAMPLES if folder is None else folder]), key=lambda group: len(group.photos)).photos


def read_group(folder: str | os.PathLike[str] | None) -> list[Photo]:
    """The same, read; errors also as raised by `read_photo`."""
    return [read_photo(path) for path in find_group(folder)]


def extend_photos(photos: Sequence[Photo], count: int) -> list[Photo]:
    """The first `count` photos; where there are fewer, they come again mirrored and turned."""
    return [variant(photos[index % len(photos)], index // len(photos)) for index in range(count)]


def group_inputs(photos: Sequence[Photo], groups: Sequence[int], preprocessing: Preprocessing) -> dict[int, FloatArray]:
    """Network inputs (N, 3, S, S) by group size N; smaller groups are the start of the largest."""
    largest = to_input(extend_photos(photos, max(groups)), preprocessing)
    return {group: largest[:group] for group in groups}


def variant(photo: Photo, round_: int) -> Photo:
    """A photo as it comes for the `round_`th time, from 0: mirrored, then turned, then both."""
    turned = np.rot90(photo, round_ // 2)
    return np.ascontiguousarray(turned[:, ::-1] if round_ % 2 else turned)
