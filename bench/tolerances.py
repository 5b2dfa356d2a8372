"""How far an engine may be from the eager FP32 network, by target and precision, with the reason beside each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gconet.runtime.errors import UsageError


@dataclass(frozen=True)
class Tolerance:
    """Limits on maps in [0, 1], for every group size; None leaves a statistic unjudged.

    Attributes
    ----------
    max_abs, mean_abs : largest and mean absolute difference.
    mask_iou : smallest intersection over union of the masks at 0.5.
    reason : why these numbers.
    """

    max_abs: float | None
    mean_abs: float
    mask_iou: float
    reason: str


_FP32 = Tolerance(1e-4, 1e-5, 0.999, "same arithmetic, other order of summation: about 1e-6 per layer over 36 layers")

TOLERANCES: Mapping[tuple[str, str], Tolerance] = {
    ("onnxruntime", "fp32"): _FP32,
    ("openvino", "fp32"): _FP32,
    ("openvino", "bf16"): Tolerance(
        None,
        5e-3,
        0.97,
        "8 bits of mantissa: border pixels of a steep map move by up to 0.5, so the maximum says little; "
        "masks of trained weights agree to 0.997, untrained ones, undecided everywhere, to 0.98",
    ),
}


def tolerance(target: str, precision: str) -> Tolerance:
    """Look the limits up; raises UsageError where none are set, since no engine passes by default."""
    if (target, precision) not in TOLERANCES:
        raise UsageError(f"no tolerance is set for {target} {precision}: add one to bench/tolerances.py")
    return TOLERANCES[target, precision]
