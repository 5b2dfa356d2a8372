"""Shapes written into a graph as constants, where the graph would compute them while it runs.

Only the group axis of our graphs is free. What they compute of shapes is small, but ONNX Runtime's CUDA provider, asked
for channels last, does it on the GPU and copies it to the CPU and back, and with such copies it makes no CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.numpy_helper

from gconet.engines.graph_edits import Shape, add_constant, attributes, drop_unread, infer_shapes, replace


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
    shapes = infer_shapes(model)
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and (shape := _reshape_shape(node, makers, shapes)):
            node.input[1] = add_constant(graph, f"{node.output[0]}_shape", np.array(shape, np.int64))
        elif node.op_type == "Resize" and (scales := _resize_scales(node, makers, shapes, constants)):
            name = add_constant(graph, f"{node.output[0]}_scales", np.array(scales, np.float32))
            replace(node.input, [node.input[0], "", name])
    drop_unread(graph)
    return result


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
    options = attributes(node)
    if len(others) != 3 or any(others[:2]) or options.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        return None
    concat = makers.get(others[2])
    if concat is None or concat.op_type != "Concat" or len(concat.input) != 2 or "axes" in options:
        return None
    first, last = makers.get(concat.input[0]), constants.get(concat.input[1])
    if first is None or last is None or first.op_type != "Shape" or first.input[0] != image:
        return None
    shape = shapes.get(image, ())
    if attributes(first) not in ({"start": 0, "end": 2}, {"end": 2}) or len(shape) != 4:
        return None
    scales = [1.0, 1.0]
    for given, wanted in zip(shape[2:], onnx.numpy_helper.to_array(last).tolist(), strict=True):
        if not given or wanted % given:  # a rounded scale might give another size
            return None
        scales.append(wanted / given)
    return scales
