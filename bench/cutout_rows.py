"""What cut-outs and thumbnails of one group score; see `cutouts.py`."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from gconet.bench.mask_scores import Mask, MaskScore, score_mask
from gconet.runtime.co_location import locate
from gconet.runtime.cutout import cutout
from gconet.runtime.framing import FITS, Frame, Shape, central_frame, frame_group
from gconet.runtime.preprocess import FloatArray, Photo
from gconet.runtime.saliency_level import THRESHOLDS, saliency_level
from gconet.runtime.thumbnail_pictures import thumbnail

SHAPES = (Shape(1, 1), Shape(4, 3), Shape(3, 4), Shape(16, 9))
WAYS = ("fixed 0.5", *(f"{way} {threshold}" for threshold in THRESHOLDS for way in ("map", "cut-out")))


@dataclass(frozen=True)
class CutoutRow:
    """One photo: a score for each of `WAYS`, whether anything was found, and seconds that the first cut-out took."""

    scores: Mapping[str, MaskScore]
    found: bool
    seconds: float


@dataclass(frozen=True)
class ThumbnailRow:
    """One thumbnail.

    Attributes
    ----------
    shown : share of the object's true pixels in it; None where the truth is empty.
    kept : share of the photo's area in it.
    ratio_error : by how many pixels its sides miss the asked aspect ratio, the better of the two ways to see it.
    """

    shape: Shape
    fit: str
    shown: float | None
    kept: float
    padded: bool
    left_out: int
    ratio_error: float


def score_cutouts(photo: Photo, saliency: FloatArray, truth: Mask) -> CutoutRow:
    """Score one photo's cut-outs, and the thresholded map each began with."""
    scores = {"fixed 0.5": score_mask(saliency >= 0.5, truth)}
    found, seconds = False, 0.0
    for threshold in THRESHOLDS:
        start = time.perf_counter()
        alpha = cutout(photo, saliency, threshold=threshold)
        elapsed = time.perf_counter() - start
        level = saliency_level(saliency, threshold)
        empty = np.zeros(truth.shape, bool)
        scores[f"map {threshold}"] = score_mask(empty if level is None else saliency >= level, truth)
        scores[f"cut-out {threshold}"] = score_mask(empty if alpha is None else alpha >= 128, truth)
        if threshold == THRESHOLDS[0]:
            found, seconds = alpha is not None, elapsed
    return CutoutRow(scores, found, seconds)


def score_thumbnails(
    photos: Sequence[Photo], saliency: Sequence[FloatArray], truths: Sequence[Mask]
) -> list[ThumbnailRow]:
    """Score a group's thumbnails of every shape and fit."""
    locations = [locate(values) for values in saliency]
    rows = []
    for shape, fit in product(SHAPES, FITS):
        for photo, truth, found in zip(photos, truths, frame_group(locations, shape, fit=fit), strict=True):
            rows.append(_score_frame(photo, truth, found or central_frame(truth.shape[0], truth.shape[1], shape), fit))
    return rows


def _score_frame(photo: Photo, truth: Mask, frame: Frame, fit: str) -> ThumbnailRow:
    height, width = thumbnail(photo, frame).shape[:2]
    ratio = frame.shape.ratio
    rows, columns = (np.arange(length) + 0.5 for length in truth.shape)  # the middles of pixels
    crop = frame.crop
    inside = truth[(rows >= crop.top) & (rows <= crop.bottom)][:, (columns >= crop.left) & (columns <= crop.right)]
    shown = np.count_nonzero(inside) / np.count_nonzero(truth) if truth.any() else None
    error = min(abs(width - height * ratio), abs(height - width / ratio))
    return ThumbnailRow(frame.shape, fit, shown, frame.kept, frame.padded, frame.left_out, error)


def summarise_cutouts(rows: Sequence[CutoutRow]) -> dict[str, Any]:
    """Means over photos, ready for JSON."""
    return {
        "photos": len(rows),
        "found": sum(row.found for row in rows),
        "seconds_per_photo": statistics.mean(row.seconds for row in rows),
        "scores": {
            way: {
                field.name: statistics.mean(getattr(row.scores[way], field.name) for row in rows)
                for field in dataclasses.fields(MaskScore)
            }
            for way in WAYS
        },
    }


def summarise_thumbnails(rows: Iterable[ThumbnailRow]) -> list[dict[str, Any]]:
    """For each shape and fit, ready for JSON: shares in [0, 1] are means over photos, but `shown_worst`."""
    kinds: dict[tuple[Shape, str], list[ThumbnailRow]] = {}
    for row in rows:
        kinds.setdefault((row.shape, row.fit), []).append(row)
    return [
        {
            "aspect": f"{shape.across}:{shape.down}",
            "fit": fit,
            "thumbnails": len(some),
            "shown": statistics.mean(shown),
            "shown_worst": min(shown),
            "photo_kept": statistics.mean(row.kept for row in some),
            "padded": sum(row.padded for row in some),
            "with_objects_left_out": sum(row.left_out > 0 for row in some),
            "ratio_error_pixels": max(row.ratio_error for row in some),
        }
        for (shape, fit), some in kinds.items()
        if (shown := [row.shown for row in some if row.shown is not None])
    ]
