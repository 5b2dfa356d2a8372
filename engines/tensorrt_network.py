"""What a network definition is made of: its layers with their types, and the share of arithmetic in each type.

Networks are strongly typed, so the definition is binding: a convolution between half tensors runs in half precision and
no other. It can be read without a GPU, which an engine cannot.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gconet.runtime.errors import TargetError

# TensorRT's names of types, and how its documentation and its engine inspector write them.
TYPE_NAMES: Mapping[str, str] = {"FLOAT": "Float", "HALF": "Half", "BF16": "BFloat16", "INT8": "Int8", "FP8": "FP8"}


@dataclass(frozen=True)
class Least:
    """The share of convolution operations that must be in a type, and why not more or less."""

    type: str
    share: float
    reason: str


# Precision is the graph's: an engine of another one than was asked for is a mistake on the way here, to be found out.
LEAST_SHARES: Mapping[str, Least] = {
    "fp16": Least("Half", 0.99, "what stays in float32 are the layers that decide the map, a few thousandths"),
    "fp32": Least("Float", 1.0, "nothing may be narrower"),
    "int8": Least("Int8", 0.01, "how much is in int8 the calibration decides; none of it is a graph without Q/DQ"),
}


@dataclass(frozen=True)
class Audit:
    """Where the arithmetic of a network's convolutions is done.

    Attributes
    ----------
    shares : of all multiplications of convolutions, by type; they sum to 1.
    convolutions : how many there are.
    gflop : operations (two per multiplication) of all of them, for one photo, in 10⁹.
    """

    shares: Mapping[str, float]
    convolutions: int
    gflop: float

    def share(self, type_name: str) -> float:
        """Share of a type, 0 where there is none of it."""
        return self.shares.get(type_name, 0.0)

    def document(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "counted": "operations of convolutions, by the type they are computed in",
            "shares": {name: round(share, 6) for name, share in self.shares.items()},
            "convolutions": self.convolutions,
            "gflop_per_photo": round(self.gflop, 6),
        }


def describe_layers(trt: ModuleType, network: Any) -> list[dict[str, Any]]:
    """The layers of a network definition in order: name, kind, and shape and type of what goes in and comes out.

    Convolutions also have `arithmetic`, the type they are computed in, and `multiplications` for one photo.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producers = {
        layer.get_output(index).name: layer.type.name for layer in layers for index in range(layer.num_outputs)
    }
    return [_describe_layer(trt, layer, producers) for layer in layers]


def audit(layers: list[dict[str, Any]]) -> Audit:
    """Sum up what `describe_layers` found."""
    multiplications: Counter[str] = Counter()
    for layer in layers:
        if "arithmetic" in layer:
            multiplications[layer["arithmetic"]] += layer["multiplications"]
    total = multiplications.total()
    shares = {name: count / total for name, count in multiplications.most_common()}
    return Audit(shares, sum("arithmetic" in layer for layer in layers), 2 * total / 1e9)


def check_audit(found: Audit, precision: str) -> None:
    """Raise TargetError if a network is not of the precision it was to be built in."""
    least = LEAST_SHARES[precision]
    if found.share(least.type) < least.share:
        raise TargetError(
            f"the graph is not {precision}: {found.share(least.type):.2%} of its convolutions' operations are in "
            f"{least.type}, at least {least.share:.0%} must be ({least.reason}): export it with --precision "
            f"{precision}, or build the precision it has"
        )


def audit_line(document: Mapping[str, Any]) -> str:
    """An audit, as the manifest has it, in one line."""
    shares = ", ".join(f"{share:.2%} in {name}" for name, share in document["shares"].items())
    count, gflop = document["convolutions"], document["gflop_per_photo"]
    return f"{count} convolutions, {gflop:.4g} GFLOP a photo: {shares or 'none'}"


def _describe_layer(trt: ModuleType, layer: Any, producers: Mapping[str, str]) -> dict[str, Any]:
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]  # None: an optional one that is left out
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    entry = {
        "name": layer.name,
        "kind": layer.type.name,
        "inputs": [_describe_tensor(tensor) for tensor in inputs if tensor is not None],
        "outputs": [_describe_tensor(tensor) for tensor in outputs],
    }
    if layer.type != trt.LayerType.CONVOLUTION:
        return entry
    quantised = len(inputs) > 1 and all(_comes_from(tensor, "DEQUANTIZE", producers) for tensor in inputs[:2])
    return {
        **entry,
        "arithmetic": TYPE_NAMES["INT8"] if quantised else _type_name(inputs[0]),
        "multiplications": _multiplications(trt, layer, inputs[0], outputs[0]),
    }


def _multiplications(trt: ModuleType, layer: Any, source: Any, result: Any) -> int:
    """Of a convolution, for one photo. The bindings hand layers out as their base class; this is their own way down."""
    layer.__class__ = trt.IConvolutionLayer
    per_output = math.prod(layer.kernel_size_nd) * source.shape[1] // layer.num_groups
    return int(math.prod(list(result.shape)[1:]) * per_output)


def _comes_from(tensor: Any, kind: str, producers: Mapping[str, str]) -> bool:
    return tensor is not None and producers.get(tensor.name) == kind


def _describe_tensor(tensor: Any) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "type": _type_name(tensor)}


def _type_name(tensor: Any) -> str:
    return TYPE_NAMES.get(tensor.dtype.name, tensor.dtype.name)
