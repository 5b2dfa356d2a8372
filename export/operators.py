"""The two operators of domain `ai.gconet` that stay visible nodes in the exported graph.

Each exists in three forms that tests hold equal: PyTorch (eager), a node emitted while tracing, and a model-local
function (ONNX FunctionProto) in standard operators. Any runtime can inline the function, and a plugin of the same
name can replace it.
"""

from __future__ import annotations

import onnx
import onnx.parser
import torch
from torch import Tensor

DOMAIN = "ai.gconet"
VERSION = 1
OPSET = 18  # ONNX Runtime's CUDA provider left Resize to the CPU for opsets 19 and up until 2026


def group_affinity(query: Tensor, key: Tensor, pixel_bias: Tensor) -> Tensor:
    """Attention of the GAM [3.2] from projected features; every scale is folded into the arguments.

    For each pixel: the best match among each photo's pixels, averaged over the photos, plus the pixel's bias; then a
    softmax over the pixels of its own photo.

    Parameters
    ----------
    query, key : (N, C, h, w), of one type.
    pixel_bias : (N, 1, h, w), added after the average; its type is that of the average, the softmax and the result.

    Returns
    -------
    (N, 1, h, w), each photo summing to 1.
    """
    if torch.onnx.is_in_onnx_export():
        return _node("GroupAffinity", (query, key, pixel_bias), pixel_bias)
    rows = query.flatten(2).transpose(1, 2).reshape(1, -1, query.shape[1])  # 1, N·h·w, C
    affinity = rows @ key.flatten(2)  # N (key photo), N·h·w, h·w
    agreement = affinity.amax(dim=-1).to(pixel_bias.dtype).mean(dim=0)  # N·h·w
    flat_bias = pixel_bias.flatten(1)  # N, h·w
    return (agreement.view(flat_bias.shape) + flat_bias).softmax(dim=-1).view(pixel_bias.shape)


def depthwise_correlation(features: Tensor, consensus: Tensor) -> Tensor:
    """Features (N, C, h, w) correlated depth-wise with the consensus (1, C, 1, 1) as 1×1 kernel [3.2]."""
    if torch.onnx.is_in_onnx_export():
        return _node("DepthwiseCorrelation", (features, consensus), features)
    return features * consensus


# The pixels of all photos are rows of one matrix, compared with one photo after the other. Two stacks of matrices,
# (1, N, h·w, C) and (N, 1, C, h·w), would make N² products; ONNX Runtime 1.31 does N of them on a GPU, and leaves the
# others as the memory was.
GROUP_AFFINITY = """
GroupAffinity (query, key, pixel_bias) => (attention)
{
    pixel_axes = Constant <value_ints = [0, 0, -1]> ()
    row_axes = Constant <value_ints = [1, -1, 0]> ()
    first = Constant <value_ints = [0]> ()
    last = Constant <value_ints = [-1]> ()
    query_pixels = Reshape (query, pixel_axes)
    key_pixels = Reshape (key, pixel_axes)
    rows_of_each = Transpose <perm = [0, 2, 1]> (query_pixels)
    query_rows = Reshape (rows_of_each, row_axes)
    affinity = MatMul (query_rows, key_pixels)
    best_match = ReduceMax <keepdims = 0> (affinity, last)
    exact_match = CastLike (best_match, pixel_bias)
    agreement = ReduceMean <keepdims = 0> (exact_match, first)
    flat_axes = Constant <value_ints = [0, -1]> ()
    flat_bias = Reshape (pixel_bias, flat_axes)
    flat_shape = Shape (flat_bias)
    agreement_by_photo = Reshape (agreement, flat_shape)
    logits = Add (agreement_by_photo, flat_bias)
    flat_attention = Softmax <axis = -1> (logits)
    shape = Shape (pixel_bias)
    attention = Reshape (flat_attention, shape)
}
"""

DEPTHWISE_CORRELATION = """
DepthwiseCorrelation (features, consensus) => (correlated)
{
    correlated = Mul (features, consensus)
}
"""


def functions(opset: int = OPSET) -> list[onnx.FunctionProto]:
    """The model-local functions, to be appended to a graph of this opset that uses the operators."""
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>'
    return [onnx.parser.parse_function(header + text) for text in (GROUP_AFFINITY, DEPTHWISE_CORRELATION)]


def opset_of(graph: onnx.ModelProto) -> int:
    """Version of the standard operators that a graph uses."""
    return next(int(entry.version) for entry in graph.opset_import if not entry.domain)


def _node(name: str, inputs: tuple[Tensor, ...], like: Tensor) -> Tensor:
    output: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", inputs, dtype=like.dtype, shape=like.shape, version=VERSION
    )
    return output
