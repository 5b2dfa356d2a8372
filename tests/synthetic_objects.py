"""Photos with one or more objects whose masks are known, and maps of them as coarse as a network's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from gconet.runtime.preprocess import FloatArray, Photo

Mask = NDArray[np.bool_]

OBJECT, GROUND = (196, 64, 40), (44, 110, 70)


def ellipses(height: int, width: int, *places: tuple[float, float, float, float]) -> Mask:
    """A mask of ellipses; each place is centre across and down and radius across and down, as shares of the sides."""
    rows, columns = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width) + 0.5) / width
    mask = np.zeros((height, width), bool)
    for x, y, across, down in places:
        mask |= ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1
    return mask


def photo_of(mask: Mask, noise: float = 8, seed: int = 0) -> Photo:
    """A photo (H, W, 3) uint8 of a reddish object on greenish ground."""
    plain = np.where(mask[..., None], OBJECT, GROUND).astype(np.float64)
    noisy = plain + np.random.default_rng(seed).normal(0, noise, plain.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def map_of(mask: Mask, blur: float = 8, shift: Sequence[int] = (0, 0)) -> FloatArray:
    """A map (H, W) float32 in [0, 1]: the mask blurred by `blur` pixels, and moved."""
    moved = np.roll(mask, tuple(shift), (0, 1))
    blurred = Image.fromarray(moved.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(blurred, np.float32) / 255


def iou(one: Mask, other: Mask) -> float:
    """Intersection over union."""
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)
