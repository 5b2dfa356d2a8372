"""From which value on a map shows the object: a threshold that adapts to the map."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.errors import PhotoError, UsageError
from gconet.runtime.preprocess import FloatArray, Photo

Threshold = Literal["mean", "otsu"]
THRESHOLDS: tuple[Threshold, ...] = get_args(Threshold)

NOTHING = 0.1  # a map that stays below shows nothing
FLOOR, CEILING = 0.1, 0.9  # of the map's maximum: what twice the mean of a nearly black or a bright map is held to
BINS = 256
ROUNDING = 1e-3  # what a filter's rounding may add to a map's range


def saliency_level(saliency: FloatArray, threshold: Threshold = "mean") -> float | None:
    """The threshold of one map.

    Parameters
    ----------
    saliency : (H, W), values in [0, 1].
    threshold : "mean", twice the mean saliency (Achanta et al., CVPR 2009), held between a tenth and nine tenths of the
        map's maximum; or "otsu", which splits the histogram so that both parts vary least (Otsu 1979).

    Returns
    -------
    A value in (0, 1] that the map reaches somewhere; None if nothing is co-salient, the map staying below 0.1.

    Raises
    ------
    UsageError
        If there is no such threshold.
    """
    if threshold not in THRESHOLDS:
        raise UsageError(f"no threshold {threshold!r}: choose one of {', '.join(THRESHOLDS)}")
    peak = float(saliency.max())
    if peak < NOTHING:
        return None
    level = 2 * float(saliency.mean(dtype=np.float64)) if threshold == "mean" else _otsu(saliency)
    return min(max(level, FLOOR * peak), CEILING * peak)


def check_saliency(saliency: FloatArray, shape: tuple[int, ...] | None = None) -> None:
    """Raise PhotoError for what is no map; UsageError if `shape`, a photo's, begins with another height and width."""
    if not isinstance(saliency, np.ndarray) or saliency.ndim != 2 or saliency.dtype.kind != "f" or not saliency.size:
        what = f"{saliency.dtype} {saliency.shape}" if isinstance(saliency, np.ndarray) else type(saliency).__name__
        raise PhotoError(f"a map is {what}: an (H, W) float32 array in [0, 1] is wanted")
    if not (saliency.min() >= -ROUNDING and saliency.max() <= 1 + ROUNDING):  # NaN fails, too
        raise PhotoError("a map has values outside [0, 1]: divide 8-bit maps by 255")
    if shape is not None and saliency.shape != shape[:2]:
        raise UsageError(
            f"the map has {saliency.shape[1]}×{saliency.shape[0]} pixels, its photo {shape[1]}×{shape[0]}: "
            "give each photo its own map"
        )


def check_photo(photo: Photo) -> None:
    """Raise PhotoError for what is no (H, W, 3) uint8 array."""
    if (
        not isinstance(photo, np.ndarray)
        or photo.dtype != np.uint8
        or photo.ndim != 3
        or photo.shape[2] != 3
        or not photo.size
    ):
        what = f"{photo.dtype} {photo.shape}" if isinstance(photo, np.ndarray) else type(photo).__name__
        raise PhotoError(f"a photo is {what}: an (H, W, 3) uint8 RGB array is wanted")


def _otsu(saliency: FloatArray) -> float:
    """The lower border of the bright part, on a histogram of 256 bins between 0 and 1."""
    counts, borders = np.histogram(saliency.clip(0, 1), BINS, (0, 1))  # else what rounding put outside is dropped
    centres = (borders[:-1] + borders[1:]) / 2
    below = counts.cumsum()[:-1].astype(np.float64)
    above = saliency.size - below
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between: NDArray[np.float64] = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    between[~np.isfinite(between)] = -1  # one of the parts is empty
    best = np.flatnonzero(between == between.max())  # a plateau where bins are empty: its middle
    return float(borders[1 + int(best.mean())])
