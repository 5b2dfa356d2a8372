"""Other forms of what ONNX Runtime's CUDA provider is slow at, in half precision with channels last.

Exact in real arithmetic. On an NVIDIA H200 they bring a pair from 1.32 to 1.05 ms, see bench/results/NOTES.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import NodeProto
from onnx.helper import make_node

from gconet.engines.graph_edits import Shape, add_constant, attributes, drop_unread, infer_shapes, replace

CHANNELS_LAST = (0, 2, 3, 1)
# Of a convolution: each pixel by itself, all channels together.
PLAIN = {"strides": [1, 1], "pads": [0, 0, 0, 0], "group": 1, "auto_pad": b"NOTSET"}


def suit_cuda(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a graph for the CUDA provider:

    - Biases of convolutions become sums of their own. The provider has a generic kernel of cuDNN add them, at half the
      speed of its own sums. Its optimiser would undo this: load the graph without `ConvAddFusion`.
    - Such a convolution reads four channels in place of three, the last times zero: cuDNN has fast kernels for four.
    - 1×1 convolutions to one channel, in float32, become matrices times a vector.
    - Means over photos and pixels, weighted by a map, become a vector times a matrix for each photo, in place of a
      product as large as the features and reductions over three axes.

    Parameters
    ----------
    model : without functions of its own and without nodes that hold graphs; not changed.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph(result.graph, infer_shapes(model))
    nodes: list[NodeProto] = []
    for node in result.graph.node:
        nodes += _weighted_mean(node, graph) or _one_channel(node, graph) or _bias_apart(node, graph) or [node]
    replace(result.graph.node, nodes)
    drop_unread(result.graph)
    return result


@dataclass(frozen=True)
class _Graph:
    """A graph that constants are added to, and what is known of it as it was."""

    proto: onnx.GraphProto
    shapes: Mapping[str, Shape]

    @cached_property
    def makers(self) -> Mapping[str, NodeProto]:
        return {name: node for node in self.proto.node for name in node.output}

    @cached_property
    def values(self) -> Mapping[str, np.ndarray]:
        return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.proto.initializer}

    def constant(self, name: str, values: np.ndarray | list[int]) -> str:
        return add_constant(self.proto, name, np.asarray(values))


def _bias_apart(node: NodeProto, graph: _Graph) -> list[NodeProto]:
    """A convolution of images with a bias, as a convolution and a sum; nothing for other nodes."""
    if node.op_type != "Conv" or len(graph.shapes.get(node.output[0], ())) != 4:
        return []
    images, weight, *bias = node.input
    if not bias or bias[0] not in graph.values:
        return []
    (output,) = node.output
    convolution = onnx.NodeProto()
    convolution.CopyFrom(node)
    before, inputs = _four_channels(images, weight, output, graph)
    replace(convolution.input, inputs)
    replace(convolution.output, [f"{output}_without_bias"])
    added = graph.constant(f"{output}_bias", graph.values[bias[0]].reshape(1, -1, 1, 1))
    return [*before, convolution, make_node("Add", [*convolution.output, added], [output])]


def _four_channels(images: str, weight: str, output: str, graph: _Graph) -> tuple[list[NodeProto], list[str]]:
    """What a convolution reads, and nodes that make it: of three channels the first once more, times zero."""
    kernels = graph.values.get(weight)
    if kernels is None or kernels.shape[1] != 3:
        return [], [images, weight]
    first, four = f"{output}_first", f"{output}_four"
    start, end, axis = (graph.constant(f"{output}_slice_{index}", [at]) for index, at in enumerate((0, 1, 1)))
    padded = graph.constant(f"{output}_kernels", np.concatenate([kernels, np.zeros_like(kernels[:, :1])], axis=1))
    slice_ = make_node("Slice", [images, start, end, axis], [first])
    return [slice_, make_node("Concat", [images, first], [four], axis=1)], [four, padded]


def _one_channel(node: NodeProto, graph: _Graph) -> list[NodeProto]:
    """A 1×1 convolution to one channel as pixels (N, H, W, C) times (C, 1); nothing for other nodes."""
    if node.op_type != "Conv" or any(name not in graph.values for name in node.input[1:]):
        return []
    weight, *bias = (graph.values[name] for name in node.input[1:])
    image = [side for side in graph.shapes.get(node.output[0], ())[1:] if side]
    if weight.dtype != np.float32 or len(weight) != 1 or len(image) != 3:
        return []
    if weight.shape[2:] != (1, 1) or any(attributes(node).get(name, plain) != plain for name, plain in PLAIN.items()):
        return []
    (output,) = node.output
    pixels, dots, logits = f"{output}_pixels", f"{output}_dots", f"{output}_logits"
    column = graph.constant(f"{output}_column", weight.reshape(-1, 1))
    shape = graph.constant(f"{output}_shape", [-1, *image])
    nodes = [make_node("Transpose", [node.input[0]], [pixels], perm=CHANNELS_LAST)]
    nodes += [make_node("MatMul", [pixels, column], [dots])]
    if bias:
        nodes += [make_node("Add", [dots, graph.constant(f"{output}_bias", bias[0])], [logits])]
    return [*nodes, make_node("Reshape", [logits if bias else dots, shape], [output])]


def _weighted_mean(node: NodeProto, graph: _Graph) -> list[NodeProto]:
    """The mean of features (N, C, H, W) by a map (N, 1, H, W), float32, as (1, H·W) times (H·W, C) for each photo."""
    product = graph.makers.get(node.input[0]) if node.op_type == "ReduceMean" else None
    if product is None or product.op_type != "Mul" or attributes(node).get("keepdims", 1):
        return []
    axes = graph.values.get(node.input[1]) if len(node.input) == 2 else None
    if axes is None or sorted(axes.tolist()) != [0, 2, 3]:
        return []
    features, weights = product.input
    _, channels, *size = graph.shapes.get(features, (None, None))
    if not channels or len(size) != 2 or not all(size) or graph.shapes.get(weights, ())[1:] != (1, *size):
        return []
    (output,) = node.output
    pixels, rows, row, sums, means = (f"{output}_{part}" for part in ("pixels", "rows", "row", "sums", "means"))
    count = math.prod(side for side in size if side)
    return [
        make_node("Transpose", [features], [pixels], perm=CHANNELS_LAST),
        make_node("Reshape", [pixels, graph.constant(f"{output}_rows_shape", [-1, count, channels])], [rows]),
        make_node("Reshape", [weights, graph.constant(f"{output}_row_shape", [-1, 1, count])], [row]),
        make_node("MatMul", [row, rows], [sums]),
        make_node("Mul", [sums, graph.constant(f"{output}_share", np.array(1 / count, np.float32))], [means]),
        make_node("ReduceMean", [means, graph.constant(f"{output}_axes", [0, 1])], [output], keepdims=0),
    ]
