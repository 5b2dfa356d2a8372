"""How good one co-saliency map is, by the definitions behind the tables of co-salient object detection papers.

The conventions are those of the eval-co-sod toolbox (CoSODToolbox). Curves start from (H, W) uint8 pictures as they are
stored: 0 is background, 255 the shared object, and a truth need not be black and white. A map is stretched to the full
range before it is cut at THRESHOLDS. Curves are (255,) float64, one value for each threshold in rising order.

A threshold only tells 256 grey values apart, so all curves come from one histogram of map against truth, summed up from
the bright end: the pixels are looked at once, not once a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Mask = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Real = NDArray[np.floating[Any]]

THRESHOLDS: FloatArray = np.linspace(0, 1 - 1e-10, 255)  # of the stretched map; the last lets pure white pass
BETA_SQUARED = 0.3  # precision weighs more than recall
ALPHA = 0.5  # share of the object term in the S-measure
TINY = 1e-20  # makes 0 / 0 zero and changes nothing else


@dataclass(frozen=True)
class Counts:
    """Pixels by the value of their truth: all of them, and those a threshold marks as object.

    For a black-and-white truth of L = 2 values, `marked` holds false and true positives, `total - marked` true and
    false negatives.

    Attributes
    ----------
    values : (L,) the truth's distinct values, in [0, 1], rising.
    total : (L,) pixels of that value.
    marked : (L, 255) those of them at or above each threshold.
    """

    values: FloatArray
    total: FloatArray
    marked: FloatArray


def stretched_values(saliency: Grey) -> FloatArray:
    """(256,): what each grey value becomes when the map's own range is stretched to [0, 1].

    A map of one grey value becomes 0 everywhere. Values the map does not have may fall outside of [0, 1].
    """
    low, high = int(saliency.min()), int(saliency.max())
    return (np.arange(256) - low) / (high - low) if high > low else np.zeros(256)


def count_pixels(saliency: Grey, truth: Grey) -> Counts:
    """Count pixels by truth and threshold; map and truth are (H, W)."""
    # The truth in the high byte: the other way round a black-and-white truth would hit one cache set over and over.
    pairs = truth.astype(np.uint16) << 8 | saliency
    histogram = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)
    present = np.flatnonzero(histogram.any(axis=1))
    histogram = histogram[present]
    at_or_above = np.zeros((len(present), 257))  # the last: brighter than white, none
    at_or_above[:, :256] = histogram[:, ::-1].cumsum(axis=1)[:, ::-1]
    darkest_marked = np.searchsorted(stretched_values(saliency), THRESHOLDS)
    return Counts(present / 255, at_or_above[:, 0], at_or_above[:, darkest_marked])


def mean_absolute_error(saliency: Real, truth: Real) -> float:
    """Mean of |map − truth|, both (H, W) in [0, 1], the map not stretched; 0 is best (Perazzi et al., CVPR 2012)."""
    return float(np.abs(saliency - truth).mean(dtype=np.float64))


def precision(counts: Counts) -> FloatArray:
    """Share of the marked pixels that is object, in [0, 1]; 0 where nothing is marked."""
    return counts.values @ counts.marked / (counts.marked.sum(axis=0) + TINY)


def recall(counts: Counts) -> FloatArray:
    """Share of the object that is marked, in [0, 1]; 0 where there is no object. Also the true positive rate."""
    return counts.values @ counts.marked / (counts.values @ counts.total + TINY)


def false_positive_rate(counts: Counts) -> FloatArray:
    """Share of the background that is marked, in [0, 1]; 0 where there is no background."""
    background = 1 - counts.values
    return background @ counts.marked / (background @ counts.total + TINY)


def f_measure(precisions: FloatArray, recalls: FloatArray) -> FloatArray:
    """Weighted harmonic mean of precision and recall, β² = 0.3, in [0, 1] (Achanta et al., CVPR 2009)."""
    return (1 + BETA_SQUARED) * precisions * recalls / (BETA_SQUARED * precisions + recalls + TINY)


def e_measure(counts: Counts) -> FloatArray:
    """Enhanced-alignment measure (Fan et al., IJCAI 2018).

    Map and truth have their means taken away; where both are then of one sign they are aligned. All pixels of one truth
    value on one side of the threshold have the same alignment, so counts are enough. As in the authors' code the sum is
    divided by H·W − 1: a perfect map has H·W / (H·W − 1), and a truth that is all object or all background has about
    1/4 whatever the map is.
    """
    pixels = counts.total.sum()
    truth = (counts.values - counts.values @ counts.total / pixels)[:, np.newaxis]  # (L, 1)
    mean = counts.marked.sum(axis=0) / pixels  # (255,) of the map once cut
    unmarked = counts.total[:, np.newaxis] - counts.marked
    enhanced = counts.marked * _enhanced_alignment(1 - mean, truth) + unmarked * _enhanced_alignment(-mean, truth)
    return enhanced.sum(axis=0) / max(pixels - 1, 1)


def s_measure(saliency: Real, mask: Mask) -> float:
    """Structure measure of a map (H, W) in [0, 1] against a mask (H, W), α = 0.5, in [0, 1] (Fan et al., ICCV 2017).

    Without any object it is one minus the map's mean, without any background the map's mean.
    """
    values = saliency.astype(np.float64)
    share = float(mask.mean())
    if share == 0:
        return float(1 - values.mean())
    if share == 1:
        return float(values.mean())
    objects = share * _object_similarity(values[mask]) + (1 - share) * _object_similarity(1 - values[~mask])
    return max(0.0, ALPHA * objects + (1 - ALPHA) * _region_similarity(values, mask))


def average_precision(precisions: FloatArray, recalls: FloatArray) -> float:
    """Area under the precision-recall curve as PASCAL VOC has it since 2010, in [0, 1] (Everingham et al., IJCV 2015).

    Precision at a recall is the best at that recall or a higher one; the area is that of the steps, from recall 0 on.
    Curves are (T,) over rising thresholds, that is, falling recall.
    """
    envelope = np.maximum.accumulate(precisions)
    return float(envelope @ (recalls - np.append(recalls[1:], 0)))


def area_under_roc(true_positive_rates: FloatArray, false_positive_rates: FloatArray) -> float:
    """Area between the first and the last point of the ROC curve, by trapezia, in [0, 1] (Borji et al., TIP 2015).

    Curves are (T,) over rising thresholds.
    """
    heights = (true_positive_rates[:-1] + true_positive_rates[1:]) / 2
    return float(heights @ (false_positive_rates[:-1] - false_positive_rates[1:]))


def _enhanced_alignment(saliency: FloatArray, truth: FloatArray) -> FloatArray:
    alignment = 2 * saliency * truth / (saliency**2 + truth**2 + TINY)  # in [-1, 1]
    return (alignment + 1) ** 2 / 4


def _object_similarity(values: FloatArray) -> float:
    """How bright and how even the map is where it should be 1; values are (P,), at least one."""
    mean = values.mean()
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    return float(2 * mean / (mean**2 + 1 + deviation))


def _region_similarity(values: FloatArray, mask: Mask) -> float:
    """Structural similarity of the four parts around the object's centre of gravity, weighted by area."""
    height, width = mask.shape
    row = round(float(mask.sum(axis=1) @ np.arange(height) / mask.sum()))
    column = round(float(mask.sum(axis=0) @ np.arange(width) / mask.sum()))
    parts = [
        (rows, columns)
        for rows in (slice(0, row), slice(row, height))
        for columns in (slice(0, column), slice(column, width))
    ]
    similarity = sum(_structural_similarity(values[part], mask[part]) * mask[part].size for part in parts)
    return similarity / mask.size


def _structural_similarity(values: FloatArray, mask: Mask) -> float:
    """SSIM of one part without its small constants; 1 where both are even, 0 where the part is empty."""
    if not mask.size:
        return 0.0
    truth = mask.astype(np.float64)
    means = values.mean(), truth.mean()
    values, truth = values - means[0], truth - means[1]
    degrees = max(mask.size - 1, 1)
    variances = (np.vdot(values, values) + np.vdot(truth, truth)) / degrees
    similarity = 4 * means[0] * means[1] * np.vdot(values, truth) / degrees
    scale = (means[0] ** 2 + means[1] ** 2) * variances
    if similarity == 0:
        return float(scale == 0)
    return float(similarity / (scale + TINY))
