"""The layers that an engine executed: what each is, what it did, and how long it took in every call.

A profiler runs a bundle's session with one setting changed, so that the layers are those of the engine that users run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gconet.runtime.preprocess import FloatArray

MATRIX_PRODUCTS = ("MatMul", "FullyConnected", "Gemm", "FusedMatMul", "MatMulIntegerToFloat")
PREFIX = re.compile("QLinear|Nhwc")  # of ONNX Runtime's integer and channels-last forms of an operation
# Names that OpenVINO and ONNX Runtime give their operations, without that prefix -> kind of layer.
KINDS: Mapping[str, str] = {
    **dict.fromkeys(("Convolution", "GroupConvolution", "Conv", "FusedConv"), "convolution"),
    **dict.fromkeys(("Interpolate", "Resize", "Upsample"), "resize"),
    **dict.fromkeys(("MaxPool", "AvgPool", "AveragePool", "Pooling"), "pooling"),
    **dict.fromkeys(MATRIX_PRODUCTS, "affinity"),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum", "Softmax", "Scan"), "affinity"),
    **dict.fromkeys(("Reorder", "ReorderInput", "ReorderOutput", "Transpose"), "reorder"),
    **dict.fromkeys(("Convert", "Cast", "FakeQuantize", "QuantizeLinear", "DequantizeLinear"), "convert"),
    **dict.fromkeys(("Subgraph", "Eltwise", "Add", "Sub", "Mul", "Div", "Relu", "Sigmoid", "Clip"), "elementwise"),
}
OTHER = "other"  # shapes and the like
WINOGRAD = "winograd"  # matrix products of convolutions in that form, by the layers that they are named after
BYTES: Mapping[str, int] = {
    **dict.fromkeys(("fp32", "i32"), 4),
    **dict.fromkeys(("bf16", "fp16"), 2),
    **dict.fromkeys(("u8", "i8", "bool"), 1),
    "i64": 8,
}  # of one value


@dataclass(frozen=True)
class Tensor:
    """An input or output of a layer: its shape, and its type under a name of `BYTES`."""

    shape: tuple[int, ...]
    type: str

    @property
    def bytes(self) -> int:
        """What it takes in memory; a type that is not known counts as 4 bytes a value."""
        return math.prod(self.shape) * BYTES.get(self.type, 4)


@dataclass(frozen=True)
class ExecutedLayer:
    """One step of an engine.

    Attributes
    ----------
    name : the module that its weights belong to, else its operation and the modules its input comes from.
    node : its name in the engine.
    kind : a value of `KINDS`, "winograd" or "other".
    kernel : what computes it, as the engine says.
    precision : of its arithmetic and, after an arrow, of its output where that differs; see `BYTES`.
    flop : multiplications and additions of a convolution or matrix product, channels that an engine pads included.
    bytes : of its inputs and outputs, each once.
    samples_ms : one for each call, in order.
    """

    name: str
    node: str
    kind: str
    kernel: str
    precision: str
    flop: int
    bytes: int
    samples_ms: Sequence[float]


class LayerProfiler(Protocol):
    """A bundle whose layers are timed."""

    def infer(self, images: FloatArray) -> object:
        """Run one group (N, 3, S, S), always of one size; raises TargetError."""

    def layers(self, calls: int) -> list[ExecutedLayer]:
        """What was executed, in order, with a sample for each of the last `calls` calls; ends the profiling."""


def kind_of(operation: str, name: str = "") -> str:
    """The kind of layer that an operation of OpenVINO or ONNX Runtime is, under a name as in `ExecutedLayer`."""
    plain = PREFIX.sub("", operation)
    if plain in MATRIX_PRODUCTS and "encoder." in name and "gam." not in name:
        return WINOGRAD
    return KINDS.get(plain, OTHER)


def count_flop(operation: str, inputs: Sequence[Tensor], output: Tensor) -> int:
    """Operations of a convolution or a matrix product from its tensors, two for each multiplication and addition."""
    if kind_of(operation) == "convolution":
        weights = next((tensor.shape for tensor in inputs[1:] if len(tensor.shape) == 4), None)
        return 2 * math.prod(output.shape) * math.prod(weights[1:]) if weights else 0
    if PREFIX.sub("", operation) in MATRIX_PRODUCTS:
        return 2 * math.prod(output.shape) * inputs[0].shape[-1]
    return 0


def arrow(arithmetic: str, output: str) -> str:
    """A precision, with that of the output where it differs."""
    return arithmetic if arithmetic == output else f"{arithmetic}→{output}"
