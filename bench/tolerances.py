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

    def __str__(self) -> str:
        largest = "not judged" if self.max_abs is None else f"{self.max_abs:g}"
        return f"max {largest}, mean {self.mean_abs:g}, mask IoU {self.mask_iou:g}; {self.reason}"


_FP32 = Tolerance(1e-4, 1e-5, 0.999, "same arithmetic, other order of summation: about 1e-6 per layer over 36 layers")
_FP16 = Tolerance(
    None,
    2e-3,
    0.995,
    "11 bits of mantissa: a border pixel of a steep map may still turn over, whole maps may not move",
)
_BF16 = Tolerance(
    None,
    5e-3,
    0.97,
    "8 bits of mantissa: border pixels of a steep map move by up to 0.5, so the maximum says little; "
    "masks of trained weights agree to 0.997, untrained ones, undecided everywhere, to 0.98",
)
_INT8 = Tolerance(
    None,
    1e-2,
    0.95,
    "255 steps, or 127, from zero to the largest activation: maps move by 0.004 in the mean, by 0.007 with 127; "
    "and the border of an object that fills a tenth of the photo may move by one pixel",
)

# "pytorch" is the typed or rounded network itself, run on a CPU in its own arithmetic: what can be known without the
# GPU; and the network as trained, eager or compiled, where benchmarks time it beside engines. Plain ONNX Runtime and
# OpenVINO, timed there too, are held to what our own engines are.
TOLERANCES: Mapping[tuple[str, str], Tolerance] = {
    ("pytorch", "fp32"): _FP32,
    ("pytorch", "fp16"): _FP16,
    ("pytorch", "bf16"): _BF16,
    ("pytorch", "int8"): _INT8,
    ("tensorrt", "fp16"): _FP16,
    ("tensorrt-rtx", "fp16"): _FP16,
    ("tensorrt", "fp32"): _FP32,
    ("tensorrt-rtx", "fp32"): _FP32,
    ("onnxruntime", "fp32"): _FP32,
    ("onnxruntime", "fp16"): _FP16,
    ("openvino", "fp32"): _FP32,
    ("openvino", "bf16"): _BF16,
    ("openvino", "fp16"): _FP16,
    ("openvino", "int8"): _INT8,
    ("onnxruntime", "int8"): _INT8,
    ("tensorrt", "int8"): _INT8,
    ("tensorrt-rtx", "int8"): _INT8,
}


def tolerance(target: str, precision: str) -> Tolerance:
    """Look the limits up; raises UsageError where none are set, since no engine passes by default."""
    if (target, precision) not in TOLERANCES:
        raise UsageError(f"no tolerance is set for {target} {precision}: add one to bench/tolerances.py")
    return TOLERANCES[target, precision]


@dataclass(frozen=True)
class MetricTolerance:
    """Limits on how far an engine's scores on labelled groups may be from the network's; all scores are in [0, 1].

    Attributes
    ----------
    mae, max_f, max_e, s : largest absolute difference, by eval-co-sod over all photos.
    reason : why these numbers.
    """

    mae: float
    max_f: float
    max_e: float
    s: float
    reason: str


METRIC_TOLERANCES: Mapping[str, MetricTolerance] = {
    "fp32": MetricTolerance(
        1e-4, 5e-4, 5e-4, 1e-4, "the same maps but for grey values on the edge between two of 256, off by one"
    ),
    "fp16": MetricTolerance(5e-4, 2e-3, 2e-3, 1e-3, "below the third decimal, the last that tables of papers print"),
    "bf16": MetricTolerance(1e-3, 3e-3, 3e-3, 2e-3, "one in the third decimal; maxima of curves move more than means"),
    "int8": MetricTolerance(
        3e-3, 5e-3, 5e-3, 5e-3, "half of 0.01, what methods in the tables of papers lie apart: the ranking stays"
    ),
}


def metric_tolerance(precision: str) -> MetricTolerance:
    """Look the limits on scores up; raises UsageError where none are set."""
    if precision not in METRIC_TOLERANCES:
        raise UsageError(f"no limits on scores are set for {precision}: add them to bench/tolerances.py")
    return METRIC_TOLERANCES[precision]
