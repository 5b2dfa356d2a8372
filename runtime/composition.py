"""What a cut-out is put on: nothing (RGBA), a colour or a picture; without a rim of the old background."""

from __future__ import annotations

import contextlib
import math

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from gconet.runtime.errors import PhotoError, UsageError
from gconet.runtime.opencv import opencv
from gconet.runtime.preprocess import Photo
from gconet.runtime.saliency_level import check_photo

Colour = tuple[int, int, int]
STRIP = 128  # rows worked on at a time
PIXELS, RADIUS = 350_000, 8  # of the copy on which colours beside the border are averaged, and of the average


def colour_of(text: str) -> Colour | None:
    """A colour by its name, as #rrggbb or in another way that Pillow knows; None if it is none, or has an opacity."""
    with contextlib.suppress(ValueError):
        colour = ImageColor.getrgb(text)
        if len(colour) == 3 and all(0 <= value <= 255 for value in colour):  # rgb(300, 0, 0) passes there
            return colour
    return None


def rgba(photo: Photo, alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photo's object on nothing.

    Parameters
    ----------
    photo : (H, W, 3) uint8 RGB.
    alpha : (H, W) uint8, as `cutout` gives it.

    Returns
    -------
    (H, W, 4) uint8, alpha not premultiplied. Fully transparent pixels are black: the background is not in the picture.

    Raises
    ------
    PhotoError, UsageError
        If an array is not of that kind, or they differ in size.
    """
    colours = own_colours(photo, alpha)
    colours *= (alpha > 0)[..., None]
    return np.dstack([colours, alpha])


def compose(photo: Photo, alpha: NDArray[np.uint8], background: Colour | Photo) -> Photo:
    """A photo's object on something else.

    Parameters
    ----------
    photo, alpha : as for `rgba`.
    background : a colour, three numbers from 0 to 255; or an (h, w, 3) uint8 picture, scaled and cut to cover it.

    Returns
    -------
    (H, W, 3) uint8 RGB.

    Raises
    ------
    PhotoError, UsageError
        As for `rgba`; also if the background is neither.
    """
    picture = own_colours(photo, alpha)
    behind = _behind(background, *alpha.shape)
    for start in range(0, len(picture), STRIP):
        rows = slice(start, start + STRIP)
        weight = alpha[rows, :, None].astype(np.uint16)
        back = behind if behind.ndim == 1 else behind[rows]
        picture[rows] = (picture[rows] * weight + back * (255 - weight) + 127) // 255  # at most 255² + 127: fits
    return picture


def own_colours(photo: Photo, alpha: NDArray[np.uint8]) -> Photo:
    """The object's own colours along its soft border, where a photo's pixels are mixed with what was behind.

    A pixel is α·F + (1 - α)·B. F and B start as averages of the colours near by, weighted by α and 1 - α; what is left
    over of the pixel is given to F (Forte, *Approximate Fast Foreground Colour Estimation*, 2021).

    Returns
    -------
    (H, W, 3) uint8; a copy of the photo, changed where alpha is between 0 and 255.
    """
    check_photo(photo)
    if not isinstance(alpha, np.ndarray) or alpha.dtype != np.uint8 or alpha.ndim != 2:
        raise PhotoError("alpha must be an (H, W) uint8 array")
    if alpha.shape != photo.shape[:2]:
        raise UsageError(f"alpha is {alpha.shape}, its photo {photo.shape[:2]}: give each photo its own")
    height, width = alpha.shape
    front, behind = _averages(photo, alpha)
    picture = photo.copy()
    for start in range(0, height, STRIP):
        soft = alpha[start : start + STRIP]
        rows, columns = np.nonzero((soft > 0) & (soft < 255))
        rows += start
        near = rows * front.shape[0] // height, columns * front.shape[1] // width
        weight = (alpha[rows, columns] / np.float32(255))[:, None]
        f, b = front[near], behind[near]
        rest = photo[rows, columns] - (weight * f + (1 - weight) * b)
        picture[rows, columns] = np.rint(np.clip(f + weight * rest, 0, 255))
    return picture


def _averages(photo: Photo, alpha: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean colours of the object and of the rest around each pixel of a reduced copy, (h, w, 3) float32 each."""
    cv2 = opencv()
    height, width = alpha.shape
    scale = min(1.0, math.sqrt(PIXELS / alpha.size))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    weight = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    means = []
    for share in (weight, 1 - weight):
        window = 2 * RADIUS + 1, 2 * RADIUS + 1
        total = cv2.boxFilter(share, -1, window, normalize=False)[..., None]
        mean = cv2.boxFilter(small * share, -1, window, normalize=False) / np.maximum(total, 1e-6)
        means.append(np.where(total > 1e-3, mean, small))
    return means[0], means[1]


def _behind(background: Colour | Photo, height: int, width: int) -> NDArray[np.uint8]:
    if isinstance(background, np.ndarray):
        check_photo(background)
        cv2 = opencv()
        rows, columns = background.shape[:2]
        scale = max(height / rows, width / columns)
        rows_used, columns_used = max(1, round(height / scale)), max(1, round(width / scale))
        top, left = (rows - rows_used) // 2, (columns - columns_used) // 2
        used = background[top : top + rows_used, left : left + columns_used]
        kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        return cv2.resize(used, (width, height), interpolation=kind)
    if len(background) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in background):
        raise UsageError(f"the background {background} is no colour: three whole numbers from 0 to 255 are")
    return np.array(background, np.uint8)
