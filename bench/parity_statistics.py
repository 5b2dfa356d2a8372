"""How far an engine's maps are from the eager network's: the statistics of one group, and their judgement."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gconet.bench.tolerances import Tolerance
from gconet.runtime.preprocess import FloatArray

REFERENCE = "eager PyTorch, fp32"


@dataclass(frozen=True)
class ParityRow:
    """How far an engine is from the reference, for one group of `group` photos; maps are in [0, 1].

    Attributes
    ----------
    max_abs, mean_abs : of the difference.
    cosine : between the maps as vectors.
    mask_iou : intersection over union of the masks at 0.5, over all photos of the group.
    finite : no NaN, no infinity.
    passed : within the tolerance.
    l2 : Euclidean norm of the difference of all maps as one vector.
    sqnr_db : signal to quantisation noise, 20·log10(‖reference‖ / ‖difference‖); None where nothing differs, or all.
    worst_photo : index of the photo with the largest mean difference.
    """

    group: int
    max_abs: float
    mean_abs: float
    cosine: float
    mask_iou: float
    finite: bool
    passed: bool
    l2: float
    sqnr_db: float | None
    worst_photo: int


def compare(reference: FloatArray, maps: FloatArray, limits: Tolerance) -> ParityRow:
    """Statistics of two sets of maps (N, 1, S, S), judged by `limits`."""
    finite = bool(np.isfinite(maps).all())
    difference = np.abs(maps.astype(np.float64) - reference)
    masks = maps >= 0.5, reference >= 0.5
    union = np.count_nonzero(masks[0] | masks[1])
    norms = float(np.linalg.norm(maps) * np.linalg.norm(reference))
    largest, mean = float(difference.max()), float(difference.mean())
    iou = float(np.count_nonzero(masks[0] & masks[1]) / union) if union else 1.0
    passed = (
        finite
        and (limits.max_abs is None or largest <= limits.max_abs)
        and mean <= limits.mean_abs
        and iou >= limits.mask_iou
    )
    return ParityRow(
        group=len(maps),
        max_abs=largest,
        mean_abs=mean,
        cosine=float(np.vdot(maps, reference)) / norms if norms else float(norms == 0),
        mask_iou=iou,
        finite=finite,
        passed=passed,
        l2=float(np.linalg.norm(difference)),
        sqnr_db=decibels(float(np.linalg.norm(reference.astype(np.float64))), float(np.linalg.norm(difference))),
        worst_photo=int(difference.reshape(len(maps), -1).mean(axis=1).argmax()),  # a NaN counts as largest
    )


def decibels(signal: float, noise: float) -> float | None:
    """20·log10(signal / noise) of two norms; None where there is no noise, no signal, or one is not finite."""
    if not (signal > 0 and noise > 0 and math.isfinite(signal) and math.isfinite(noise)):
        return None
    return 20 * math.log10(signal / noise)


def parity_document(rows: Sequence[ParityRow], limits: Tolerance) -> dict[str, Any]:
    """What the manifest and the JSON report say; numbers that are not finite become null."""
    return {
        "passed": all(row.passed for row in rows),
        "reference": REFERENCE,
        "tolerance": dataclasses.asdict(limits),
        "rows": [json_numbers(row) for row in rows],
    }


def json_numbers(row: Any) -> dict[str, Any]:
    """The fields of a dataclass, ready for JSON, which knows neither NaN nor infinity."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in dataclasses.asdict(row).items()
    }


def parity_table(rows: Sequence[ParityRow]) -> str:
    """A table for people."""
    lines = [f"{'group':>7} {'max |Δ|':>9} {'mean |Δ|':>9} {'L2':>9} {'SQNR dB':>8} {'cosine':>10} {'mask IoU':>9}"]
    lines += [
        f"{row.group:>7} {row.max_abs:>9.1e} {row.mean_abs:>9.1e} {row.l2:>9.1e} {in_decibels(row.sqnr_db):>8} "
        f"{row.cosine:>10.7f} {row.mask_iou:>9.5f}{'' if row.passed else '  outside the tolerance'}"
        for row in rows
    ]
    return "\n".join(lines)


def in_decibels(value: float | None) -> str:
    """A signal-to-noise ratio as tables show it."""
    return "-" if value is None else f"{value:.1f}"
