"""What precision a graph really computes in: the share of convolution operations by type, and every cast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx
from onnx import TensorProto

NAMES = {
    TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16", TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8", TensorProto.INT64: "int64",
}  # fmt: skip


@dataclass(frozen=True)
class GraphAudit:
    """Findings about an ONNX graph.

    Attributes
    ----------
    operations : of convolutions for one photo (a multiplication and an addition are two), by type of the operands;
        "int8" where both come from DequantizeLinear.
    casts : "tensor: from → to" for each Cast outside of functions, in graph order.
    """

    operations: Mapping[str, int]
    casts: tuple[str, ...]

    def share(self, precision: str) -> float:
        """Share of the convolution operations computed in a type, in [0, 1]."""
        return self.operations.get(precision, 0) / sum(self.operations.values())


def audit_graph(graph: onnx.ModelProto) -> GraphAudit:
    """Audit an exported graph; shapes are inferred, the group axis counts as one photo."""
    body = onnx.shape_inference.infer_shapes(graph).graph
    types = {value.name: value.type.tensor_type for value in (*body.value_info, *body.input, *body.output)}
    element = {name: value.elem_type for name, value in types.items()}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in body.initializer}
    element |= {tensor.name: tensor.data_type for tensor in body.initializer}
    dequantised = {node.output[0]: node.input[0] for node in body.node if node.op_type == "DequantizeLinear"}
    operations: dict[str, int] = defaultdict(int)
    casts = []
    for node in body.node:
        if node.op_type == "Conv":
            data, weight = node.input[:2]
            both = data in dequantised and weight in dequantised
            pixels = prod(axis.dim_value for axis in types[node.output[0]].shape.dim[2:])
            name = "int8" if both else NAMES[element[weight]]
            operations[name] += 2 * pixels * prod(shapes[dequantised.get(weight, weight)])
        elif node.op_type == "Cast":
            narrow, wide = NAMES[element[node.input[0]]], NAMES[element[node.output[0]]]
            casts.append(f"{node.input[0]}: {narrow} → {wide}")
    return GraphAudit(dict(operations), tuple(casts))
