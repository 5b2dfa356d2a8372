"""A reduced mask becomes a soft border at full resolution, along the photo's edges: the fast guided filter.

He, Sun & Tang, *Guided Image Filtering* (PAMI 2013), and He & Sun, *Fast Guided Filter* (2015): in every window of the
reduced photo the mask is fitted by a linear function of the three colours; the functions' coefficients, which are
smooth, are enlarged and applied to the photo's own pixels, strip by strip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.grabcut import Mask
from gconet.runtime.opencv import opencv
from gconet.runtime.preprocess import FloatArray, Photo

STRIP = 128  # rows
RADIUS = 0.008  # of a window, as a share of the square root of the reduced photo's area
EPSILON = 1e-4  # variance of colours in [0, 1] below which a window counts as flat
BAND = 0.008  # how far from the mask's border opacity may be anything but 0 or 1, as a share likewise
GAIN = 2.0  # contrast around one half: fits are flatter than borders


def soft_border(photo: Photo, small: Photo, mask: Mask) -> NDArray[np.uint8]:
    """Bring a mask to a photo's size.

    Parameters
    ----------
    photo : (H, W, 3) uint8.
    small : (h, w, 3) uint8, the reduced photo.
    mask : (h, w) uint8 of 0 and 1.

    Returns
    -------
    (H, W) uint8: 255 inside, 0 outside, soft in a band along the border.
    """
    cv2 = opencv()
    height, width = photo.shape[:2]
    alpha: NDArray[np.uint8] = cv2.resize(255 * mask, (width, height), interpolation=cv2.INTER_NEAREST)
    side = math.sqrt(mask.size)
    limits = _limits(mask, max(1.0, BAND * side))
    if (limits[..., 0] == limits[..., 1]).all():
        return alpha
    coefficients = guided_filter(small, mask.astype(np.float32), max(1, round(RADIUS * side)), EPSILON)
    for part in _parts(limits, height, width):
        fit = cv2.split(_enlarged(coefficients, part, height, width))
        values = fit[3]
        for colour, slope in zip(cv2.split(photo[part]), fit[:3], strict=True):
            slope *= colour
            slope *= np.float32(1 / 255)
            values += slope
        values -= np.float32(0.5)
        values *= np.float32(GAIN)
        values += np.float32(0.5)
        low, high = cv2.split(_enlarged(limits, part, height, width))
        np.clip(values, low, high, out=values)
        values *= np.float32(255)
        alpha[part] = np.rint(values, out=values)
    return alpha


def guided_filter(photo: Photo, values: FloatArray, radius: int, epsilon: float) -> FloatArray:
    """The linear functions of colour that fit `values` around each pixel.

    Parameters
    ----------
    photo : (h, w, 3) uint8, the guide.
    values : (h, w) float32.
    radius : of the square windows, in pixels; they have 2 · radius + 1 a side.
    epsilon : weight of the flat answer, a variance of colours in [0, 1].

    Returns
    -------
    (h, w, 4) float32: the filtered values are the colours in [0, 1] times the first three, plus the fourth.
    """
    cv2 = opencv()

    def mean(array: FloatArray) -> FloatArray:
        return cv2.boxFilter(array, -1, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT)

    guide = photo.astype(np.float32) * np.float32(1 / 255)
    mean_guide, mean_values = mean(guide), mean(values)
    covariance = mean(guide * values[..., None]) - mean_guide * mean_values[..., None]
    entries = {
        (row, column): mean(guide[..., row] * guide[..., column])
        - mean_guide[..., row] * mean_guide[..., column]
        + np.float32(epsilon if row == column else 0)
        for row in range(3)
        for column in range(row, 3)
    }
    slope = _solve(entries, covariance)
    offset = mean_values - (slope * mean_guide).sum(axis=2)
    return mean(np.dstack([slope, offset]).astype(np.float32))


def _solve(entries: Mapping[tuple[int, int], FloatArray], right: FloatArray) -> FloatArray:
    """Solve symmetric 3×3 systems, one a pixel, by cofactors: ten times as fast as a call of LAPACK for each.

    Parameters
    ----------
    entries : of the matrices' upper triangles, (h, w) each.
    right : (h, w, 3).
    """
    (a, b, c), (d, e), f = (entries[0, 0], entries[0, 1], entries[0, 2]), (entries[1, 1], entries[1, 2]), entries[2, 2]
    first = np.stack([d * f - e * e, c * e - b * f, b * e - c * d], axis=-1)
    second = np.stack([first[..., 1], a * f - c * c, b * c - a * e], axis=-1)
    third = np.stack([first[..., 2], second[..., 2], a * d - b * b], axis=-1)
    determinant = a * first[..., 0] + b * first[..., 1] + c * first[..., 2]
    solved = np.stack([(row * right).sum(axis=-1) for row in (first, second, third)], axis=-1)
    return solved / determinant[..., None]


def _limits(mask: Mask, band: float) -> FloatArray:
    """The least and the greatest opacity, (h, w, 2): they differ within `band` pixels of the mask's border only."""
    cv2 = opencv()
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5) > band
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5) > band
    return np.dstack([inside, ~outside]).astype(np.float32)


def _parts(limits: FloatArray, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Strips of the photo that hold all of the band in which opacity is to be found."""
    open_ = limits[..., 0] != limits[..., 1]
    rows = _reach(open_.any(axis=1), height)
    columns = _reach(open_.any(axis=0), width)
    for start in range(rows.start, rows.stop, STRIP):
        yield slice(start, min(start + STRIP, rows.stop)), columns


def _reach(open_: NDArray[np.bool_], length: int) -> slice:
    """From the first to the last of those along an axis, in pixels of the photo, one of the reduced ones further."""
    indices, scale = np.flatnonzero(open_), length / len(open_)
    return slice(max(0, math.floor((indices[0] - 1) * scale)), min(length, math.ceil((indices[-1] + 2) * scale)))


def _enlarged(values: FloatArray, part: tuple[slice, slice], height: int, width: int) -> FloatArray:
    """A part of `values` (h, w, …) at a photo's size: bilinear, pixel centres on pixel centres."""
    cv2 = opencv()
    rows, columns = part
    across, down = values.shape[1] / width, values.shape[0] / height
    turn = np.array(
        [
            [across, 0, (columns.start + 0.5) * across - 0.5],
            [0, down, (rows.start + 0.5) * down - 0.5],
        ]
    )
    size = columns.stop - columns.start, rows.stop - rows.start
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(values, turn, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
