"""What the rewrites of ONNX graphs have in common: looking things up, adding constants, dropping what nothing reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference

Shape = tuple[int | None, ...]  # None: not known before the graph runs


def infer_shapes(model: onnx.ModelProto) -> Mapping[str, Shape]:
    """Shapes of a graph's tensors, as far as they can be told."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(
            dimension.dim_value if dimension.HasField("dim_value") else None
            for dimension in value.type.tensor_type.shape.dim
        )
        for values in (graph.input, graph.value_info, graph.output)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """A node's attributes by name."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def add_constant(graph: onnx.GraphProto, name: str, values: np.ndarray) -> str:
    """Give the graph a constant; returns its name."""
    graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return name


def drop_unread(graph: onnx.GraphProto) -> None:
    """Drop nodes, constants and facts about tensors that nothing reads."""
    kept = len(graph.node) + 1
    while len(graph.node) < kept:
        kept = len(graph.node)
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        replace(graph.node, [node for node in graph.node if read & set(node.output)])
    replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in read])
    replace(graph.value_info, [value for value in graph.value_info if value.name in read])


def replace(field: object, values: Sequence[object]) -> None:
    """Give a repeated field of a message other elements."""
    del field[:]  # type: ignore[attr-defined]
    field.extend(values)  # type: ignore[attr-defined]
