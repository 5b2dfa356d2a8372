"""Shapes written into a graph as constants, where the graph would compute them while it runs.

Only the group axis of our graphs is free. What they compute of shapes is small, but ONNX Runtime's CUDA provider, asked
for channels last, does it on the GPU and copies it to the CPU and back, and with such copies it makes no CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference

Shape = tuple[int | None, ...]  # None: not known before the graph runs
LEFT_OVER = frozenset({"Shape", "Concat", "Constant"})  # what made the shapes


def spell_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace computed shapes of `Reshape` and computed sizes of `Resize` by constants; no bit of the answer changes.

    Where inference cannot tell a shape but for its first axis, or a size is no whole multiple, the node stays as it is.

    Parameters
    ----------
    model : without functions of its own and without nodes that hold graphs; not changed.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    shapes = _shapes(onnx.shape_inference.infer_shapes(model).graph)
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and (shape := _reshape_shape(node, makers, shapes)):
            node.input[1] = _add(graph, f"{node.output[0]}_shape", np.array(shape, np.int64))
        elif node.op_type == "Resize" and (scales := _resize_scales(node, makers, shapes, constants)):
            name = _add(graph, f"{node.output[0]}_scales", np.array(scales, np.float32))
            _replace(node.input, [node.input[0], "", name])
    _drop_left_overs(graph)
    return result


def _shapes(graph: onnx.GraphProto) -> Mapping[str, Shape]:
    return {
        value.name: tuple(
            dimension.dim_value if dimension.HasField("dim_value") else None
            for dimension in value.type.tensor_type.shape.dim
        )
        for values in (graph.input, graph.value_info, graph.output)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _reshape_shape(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], shapes: Mapping[str, Shape]
) -> list[int] | None:
    """[-1, rest of the shape of x] for the shape of x: the first axis is what the others leave of the elements."""
    maker = makers.get(node.input[1])
    if maker is None or maker.op_type != "Shape" or maker.attribute:
        return None
    _, *rest = shapes.get(maker.input[0]) or (None, None)
    return [-1, *(size for size in rest if size)] if all(rest) else None


def _resize_scales(
    node: onnx.NodeProto,
    makers: Mapping[str, onnx.NodeProto],
    shapes: Mapping[str, Shape],
    constants: Mapping[str, onnx.TensorProto],
) -> list[float] | None:
    """[1, 1, H/h, W/w] for sizes that are the first two of the input's and a constant H, W; see `spell_shapes`."""
    image, *others = node.input
    attributes = _attributes(node)
    if len(others) != 3 or any(others[:2]) or attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        return None
    concat = makers.get(others[2])
    if concat is None or concat.op_type != "Concat" or len(concat.input) != 2 or "axes" in attributes:
        return None
    first, last = makers.get(concat.input[0]), constants.get(concat.input[1])
    if first is None or last is None or first.op_type != "Shape" or first.input[0] != image:
        return None
    shape = shapes.get(image, ())
    if _attributes(first) not in ({"start": 0, "end": 2}, {"end": 2}) or len(shape) != 4:
        return None
    scales = [1.0, 1.0]
    for given, wanted in zip(shape[2:], onnx.numpy_helper.to_array(last).tolist(), strict=True):
        if not given or wanted % given:  # a rounded scale might give another size
            return None
        scales.append(wanted / given)
    return scales


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _add(graph: onnx.GraphProto, name: str, values: np.ndarray) -> str:
    graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return name


def _drop_left_overs(graph: onnx.GraphProto) -> None:
    """Drop nodes and constants that nothing reads any more."""
    kept = len(graph.node) + 1
    while len(graph.node) < kept:
        kept = len(graph.node)
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        _replace(graph.node, [node for node in graph.node if node.op_type not in LEFT_OVER or read & set(node.output)])
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in read])
    _replace(graph.value_info, [value for value in graph.value_info if value.name in read])


def _replace(field: object, values: Sequence[object]) -> None:
    """Give a repeated field of a message other elements."""
    del field[:]  # type: ignore[attr-defined]
    field.extend(values)  # type: ignore[attr-defined]
