"""GrabCut (Rother et al. 2004) seeded by a map: the object's border moves to where the photo's colours change.

It runs on a reduced copy: its time grows faster than the pixels, and a map of 224 pixels says nothing about single
ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.opencv import opencv
from gconet.runtime.preprocess import FloatArray, Photo

Mask = NDArray[np.uint8]  # of 0 and 1

PIXELS = 350_000  # of the reduced copy
LONGEST = 32_766  # pixels of its longer side: OpenCV warps none that are longer
FEWEST = 32  # pixels of object and of background, fewer than which have no colour model


@dataclass(frozen=True)
class Seeding:
    """How a map becomes seeds; lengths are shares of the square root of the photo's area.

    Attributes
    ----------
    sure : how far between the threshold and the map's maximum the object is beyond doubt.
    doubt : below this share of the threshold lies the background beyond doubt.
    inset : how far from the thresholded region's border the object is beyond doubt.
    reach : how far outside of it the background is.
    context : how far beyond that GrabCut looks for what the background looks like.
    iterations : of GrabCut.
    agreement : the least intersection over union of result and thresholded map; a result that agrees less has followed
        the wrong colours, and the thresholded map is taken instead.
    """

    sure: float = 0.8
    doubt: float = 0.25
    inset: float = 0.02
    reach: float = 0.06
    context: float = 0.15
    iterations: int = 3
    agreement: float = 0.4


SEEDING = Seeding()  # chosen on groups the demo weights were trained on, for area and border together


def reduced(photo: Photo, saliency: FloatArray) -> tuple[Photo, FloatArray]:
    """Copies of a photo and its map, small enough to work on, by averages; smaller ones stay as they are."""
    cv2 = opencv()
    height, width = photo.shape[:2]
    scale = min(math.sqrt(PIXELS / (height * width)), LONGEST / max(height, width))
    saliency = np.ascontiguousarray(saliency, np.float32)
    if scale >= 1:
        return np.ascontiguousarray(photo), saliency
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA), cv2.resize(
        saliency, size, interpolation=cv2.INTER_AREA
    )


def grab(photo: Photo, saliency: FloatArray, level: float, seeding: Seeding = SEEDING) -> Mask:
    """The object's mask, of the photo's size.

    Parameters
    ----------
    photo : (h, w, 3) uint8, reduced.
    saliency : (h, w) float32 in [0, 1], its map.
    level : the map's threshold.
    seeding : how the map becomes seeds.

    Returns
    -------
    (h, w) uint8 of 0 and 1. Where GrabCut has too few pixels of object or background to learn colours from, or strays
    from the map, that is the thresholded map.
    """
    cv2 = opencv()
    plain: Mask = (saliency >= level).astype(np.uint8)
    seeds = seed(saliency, level, seeding)
    object_pixels = int(plain.sum())
    if min(object_pixels, plain.size - object_pixels, int((seeds == cv2.GC_BGD).sum())) < FEWEST:
        return plain
    cv2.setRNGSeed(0)  # of this thread: the colour models start from k-means
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    part = _surroundings(seeds != cv2.GC_BGD, round(seeding.context * math.sqrt(saliency.size)))
    inside = np.ascontiguousarray(seeds[part])
    try:
        cv2.grabCut(
            np.ascontiguousarray(photo[part]),
            inside,
            None,
            background,
            foreground,
            seeding.iterations,
            cv2.GC_INIT_WITH_MASK,
        )
    except cv2.error:  # colour models that degenerate, as of a photo of few colours
        return plain
    found: Mask = np.zeros_like(plain)
    found[part] = inside & 1  # GC_FGD and GC_PR_FGD are odd
    common, either = int((found & plain).sum()), int((found | plain).sum())
    return found if common >= seeding.agreement * either else plain


def seed(saliency: FloatArray, level: float, seeding: Seeding) -> Mask:
    """GrabCut's four values for each pixel: sure and probable background and object, (h, w) uint8."""
    cv2 = opencv()
    side = math.sqrt(saliency.size)
    plain = (saliency >= level).astype(np.uint8)
    peak = float(saliency.max())
    sure = (saliency >= level + seeding.sure * (peak - level)) & (_shrunk(plain, seeding.inset * side) > 0)
    near = _grown(plain, seeding.reach * side) > 0
    seeds = np.full(saliency.shape, cv2.GC_BGD, np.uint8)
    seeds[near & (saliency >= seeding.doubt * level)] = cv2.GC_PR_BGD
    seeds[plain > 0] = cv2.GC_PR_FGD
    seeds[sure] = cv2.GC_FGD
    return seeds


def _surroundings(pixels: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """The rows and columns that hold the pixels, and `margin` more on each side."""
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    return slice(top, rows[-1] + 1 + margin), slice(left, columns[-1] + 1 + margin)


def _shrunk(mask: Mask, radius: float) -> Mask:
    return 1 - _grown(1 - mask, radius)


def _grown(mask: Mask, radius: float) -> Mask:
    """What lies within `radius` of the mask."""
    cv2 = opencv()
    if radius < 1 or not mask.any():
        return mask
    return (cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5) <= radius).astype(np.uint8)
