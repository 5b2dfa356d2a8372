"""From photos to network input and from network output to maps, as the authors do it. The one place for both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatArray = NDArray[np.float32]
Photo = NDArray[np.uint8]

MIN_SIZE, MAX_SIZE, SIZE_STEP = 32, 2048, 16  # four poolings by two; C5 has at least 2×2 pixels


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes network input.

    Attributes
    ----------
    size : side of the square input in pixels; the aspect ratio is not kept (paper, 4.1).
    mean, std : per RGB channel, of values in [0, 1]; the defaults are ImageNet's.
    """

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Preprocessing:
        """From parsed JSON; raises KeyError, TypeError or ValueError if it is not what `asdict` gives."""
        try:
            mean, std = (tuple(float(value) for value in document[key]) for key in ("mean", "std"))
        except OverflowError as error:  # JSON's whole numbers have no largest
            raise ValueError(str(error)) from error
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or not all(map(math.isfinite, mean + std)):
            raise ValueError(f"mean {mean} and std {std} must be three finite numbers each, std above 0")
        return Preprocessing(check_size(document["size"]), mean, std)


def check_size(size: int) -> int:
    """Return `size` if the network takes square images of it, else raise ValueError."""
    if not isinstance(size, int) or not MIN_SIZE <= size <= MAX_SIZE or size % SIZE_STEP:
        raise ValueError(f"size {size} is not a multiple of {SIZE_STEP} from {MIN_SIZE} to {MAX_SIZE}")
    return size


def to_input(photos: Iterable[Photo], preprocessing: Preprocessing, count: int | None = None) -> FloatArray:
    """Resize (bilinear, antialiased when shrinking) and normalise a group.

    Parameters
    ----------
    photos : N arrays (H, W, 3) uint8, RGB, each of its own size. They are taken one by one: an iterator need not hold
        all of them in memory.
    count : N; only an iterator, which has no length, needs it.

    Returns
    -------
    (N, 3, size, size) float32, contiguous.
    """
    size = preprocessing.size
    if count is None:
        photos = list(photos)
        count = len(photos)
    pixels = np.empty((count, size, size, 3), np.uint8)
    for index, photo in enumerate(photos):
        pixels[index] = np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR))
    images = np.empty((count, 3, size, size), np.float32)
    for channel, (mean, std) in enumerate(zip(preprocessing.mean, preprocessing.std, strict=True)):
        plane = images[:, channel]  # plane by plane, ten times as fast as the whole and then a transposition
        np.multiply(pixels[..., channel], np.float32(1 / (255 * std)), out=plane)
        plane += np.float32(-mean / std)
    return images


def resize_map(saliency: FloatArray, height: int, width: int) -> FloatArray:
    """Bring one map (h, w) to a photo's size: bilinear with aligned corners, as the reference does.

    Returns
    -------
    (height, width) float32; values stay within the range of `saliency`.
    """
    rows = _blend(saliency, *_neighbours(height, saliency.shape[0]))
    return np.ascontiguousarray(_blend(rows.T, *_neighbours(width, saliency.shape[1])).T)


def to_bytes(saliency: FloatArray) -> NDArray[np.uint8]:
    """The 8-bit grey values of a map in [0, 1], as they are written and evaluated.

    Cut off, not rounded: the authors save their maps by `mul(255).byte()`, and only so do tables compare.
    """
    return (saliency * 255).astype(np.uint8)


def _neighbours(out_length: int, in_length: int) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    steps = max(out_length - 1, 1)
    lower, rest = np.divmod(np.arange(out_length, dtype=np.intp) * (in_length - 1), steps)  # whole numbers: exact
    return lower, np.minimum(lower + 1, in_length - 1), (rest / steps).astype(np.float32)


def _blend(values: FloatArray, lower: NDArray[np.intp], upper: NDArray[np.intp], weight: FloatArray) -> FloatArray:
    first = values[lower]
    return first + (values[upper] - first) * weight[:, None]
