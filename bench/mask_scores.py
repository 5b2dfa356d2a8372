"""How well a mask agrees with the truth: in area, and along its border."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.opencv import opencv

Mask = NDArray[np.bool_]

TOLERANCE = 0.008  # of the picture's diagonal, within which border pixels count as met (Perazzi et al., CVPR 2016)


@dataclass(frozen=True)
class MaskScore:
    """Both in [0, 1], larger is better.

    Attributes
    ----------
    iou : intersection over union.
    boundary_f : harmonic mean of the share of the mask's border that lies near the truth's, and of the truth's near it.
    """

    iou: float
    boundary_f: float


def score_mask(mask: Mask, truth: Mask) -> MaskScore:
    """Score a mask (H, W) of bool; two empty masks agree fully, one empty mask not at all."""
    union = np.count_nonzero(mask | truth)
    return MaskScore(np.count_nonzero(mask & truth) / union if union else 1.0, boundary_f(mask, truth))


def boundary_f(mask: Mask, truth: Mask, tolerance: float = TOLERANCE) -> float:
    """The F-measure of borders, as DAVIS defines it.

    Parameters
    ----------
    mask, truth : (H, W) bool.
    tolerance : how far borders may lie apart, as a share of the diagonal; rounded up to whole pixels.
    """
    own, true = border(mask), border(truth)
    if not own.any() or not true.any():
        return float(own.any() == true.any())
    reach = math.ceil(tolerance * math.hypot(*mask.shape))
    precision = np.count_nonzero(own & _near(true, reach)) / np.count_nonzero(own)
    recall = np.count_nonzero(true & _near(own, reach)) / np.count_nonzero(true)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def border(mask: Mask) -> Mask:
    """Pixels whose right, lower or lower right neighbour is on the other side; the picture's edge is no border."""
    found = np.zeros(mask.shape, bool)
    found[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    found[:-1] |= mask[:-1] != mask[1:]
    found[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return found


def _near(pixels: Mask, reach: int) -> Mask:
    """What lies within `reach` pixels, which are an ellipse of OpenCV's."""
    cv2 = opencv()
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(pixels.astype(np.uint8), disc) > 0
