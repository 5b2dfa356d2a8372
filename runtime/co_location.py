"""Where a map's objects are, as boxes: the first half of a thumbnail (paper, section 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gconet.runtime.opencv import opencv
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.saliency_level import Threshold, check_saliency, saliency_level

LONGEST = 256  # pixels of the reduced map's longer side; maps come from networks of about as many
LEAST_WEIGHT = 0.004  # of all objects' saliency, below which a spot is no object
FAINT = 0.25  # of the threshold: an object's enlarged box goes as far as the map around it stays above
MARGIN = 0.1  # and further by this share of the box's mean side


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the photo; `right` and `bottom` are the first beyond it."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels across."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels down."""
        return self.bottom - self.top

    def joined(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

    def within(self, height: int, width: int) -> Box:
        """What of it lies in a photo."""
        return Box(max(self.left, 0), max(self.top, 0), min(self.right, width), min(self.bottom, height))


@dataclass(frozen=True)
class Found:
    """One object of a photo.

    Attributes
    ----------
    tight : the box of what passes the threshold.
    enlarged : that, and what of the map around it is less certain, and a margin; inside the photo.
    weight : its share of the saliency of all objects, in (0, 1].
    """

    tight: Box
    enlarged: Box
    weight: float


@dataclass(frozen=True)
class Location:
    """What is co-salient in a photo.

    Attributes
    ----------
    height, width : of the photo, pixels.
    objects : the most salient first; at least one.
    saliency : the reduced map, (h, w) float32.
    """

    height: int
    width: int
    objects: tuple[Found, ...]
    saliency: FloatArray


def locate(saliency: FloatArray, *, threshold: Threshold = "mean") -> Location | None:
    """Find the co-salient objects of a photo, each a connected region of the map above its threshold.

    Parameters
    ----------
    saliency : (H, W) float32 in [0, 1], a map of the photo's size.
    threshold : "mean" or "otsu", see `saliency_level`.

    Returns
    -------
    The objects' boxes; None if nothing is co-salient.

    Raises
    ------
    PhotoError
        If the map is no such array.
    UsageError
        If there is no such threshold.
    TargetError
        If OpenCV is not installed.
    """
    check_saliency(saliency)
    cv2 = opencv()
    height, width = saliency.shape
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(np.ascontiguousarray(saliency, np.float32), size, interpolation=cv2.INTER_AREA)
    level = saliency_level(small, threshold)
    if level is None:
        return None
    wide = _regions(small >= FAINT * level)
    regions = _regions(small >= level)
    weights = np.bincount(regions.labels.ravel(), small.ravel())[1:]
    weights = weights / weights.sum()
    objects: list[Found] = []
    for index in np.argsort(-weights, kind="stable"):
        if weights[index] < LEAST_WEIGHT and objects:
            break
        tight = regions.boxes[index]
        row, column = np.argwhere(regions.labels == index + 1)[0]
        enlarged = wide.boxes[wide.labels[row, column] - 1]
        objects.append(_found(tight, enlarged, float(weights[index]), small.shape, (height, width)))
    return Location(height, width, tuple(objects), small)


@dataclass(frozen=True)
class _Regions:
    labels: np.ndarray[tuple[int, int], np.dtype[np.int32]]  # 0 is none
    boxes: tuple[Box, ...]  # of labels 1, 2, …, in pixels of the reduced map


def _regions(mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> _Regions:
    count, labels, statistics, _ = opencv().connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    boxes = [Box(x, y, x + w, y + h) for x, y, w, h in statistics[1:count, :4].tolist()]
    return _Regions(labels, tuple(boxes))


def _found(tight: Box, enlarged: Box, weight: float, small: tuple[int, int], full: tuple[int, int]) -> Found:
    """In the photo's pixels, the enlarged box with its margin."""
    down, across = full[0] / small[0], full[1] / small[1]

    def scaled(box: Box) -> Box:
        return Box(box.left * across, box.top * down, box.right * across, box.bottom * down)

    inner, outer = scaled(tight), scaled(enlarged)
    margin = MARGIN * (outer.width + outer.height) / 2
    grown = Box(outer.left - margin, outer.top - margin, outer.right + margin, outer.bottom + margin)
    return Found(inner, grown.within(*full), weight)
