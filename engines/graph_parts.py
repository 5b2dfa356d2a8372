"""The graphs of a bundle, cut from the exported one at named tensors: they have its weights, and store them once.

`detect` answers in one call, which small groups want. `consensus` and `segment` are its two halves: what a group agrees
on, and maps against a consensus that was kept. The others are for groups of any size, a block of photos at a time:
`encode` each block, `agree` for each pair of blocks, `pool` each photo, `draw` each block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
import onnx.parser
import onnx.utils

LATERALS = ("lateral_2", "lateral_3", "lateral_4")  # of the decoder; level 1's is large, and cheap to compute again


@dataclass(frozen=True)
class Part:
    """A graph of a bundle, by the names of its inputs and outputs in the exported graph."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


# Without a GAM the consensus is an average: nothing is projected, and nothing attended to.
AFFINITY_TENSORS = frozenset({"query", "pixel_bias", "attention"})

PARTS = (
    Part("detect", ("images",), ("maps",)),
    Part("consensus", ("images",), ("consensus", "attention")),
    Part("segment", ("images", "consensus"), ("maps",)),
    Part("encode", ("images",), ("features", "query", "pixel_bias", *LATERALS)),
    Part("pool", ("features", "attention"), ("consensus",)),
    Part("draw", ("images", "features", *LATERALS, "consensus"), ("maps",)),
)

# For each pixel of the query's photos the best match among the pixels of each photo that it is compared with. It has no
# weights; the products are those of `GroupAffinity`. The pixels of all queries are rows of one matrix: engines that
# rearrange the other factor, as they do in bf16, do so once for each photo, and not for each pair of photos.
AGREE = """
<ir_version: 8, opset_import: ["" : {opset}]>
agree (float[queries, {channels}, {height}, {width}] query, float[photos, {channels}, {height}, {width}] features)
    => (float[queries, photos, {pixels}] best_match)
{{
    pixel_axes = Constant <value_ints = [0, 0, -1]> ()
    row_axes = Constant <value_ints = [1, -1, {channels}]> ()
    photo_axes = Constant <value_ints = [0, -1, {pixels}]> ()
    last = Constant <value_ints = [-1]> ()
    query_pixels = Reshape (query, pixel_axes)
    rows_of_each = Transpose <perm = [0, 2, 1]> (query_pixels)
    query_rows = Reshape (rows_of_each, row_axes)
    key_pixels = Reshape (features, pixel_axes)
    affinity = MatMul (query_rows, key_pixels)
    best_of_rows = ReduceMax <keepdims = 0> (affinity, last)
    best_by_photo = Reshape (best_of_rows, photo_axes)
    best_match = Transpose <perm = [1, 0, 2]> (best_by_photo)
}}
"""


def cut(graph: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """Cut an exported graph into the graphs of a bundle.

    Parameters
    ----------
    graph : as `export_network` makes it, its inner tensors named; not changed.

    Returns
    -------
    Graphs by name, each checked; only `detect` of a graph whose inner tensors have no names, or are not float32.
    """
    known = {value.name: value.type.tensor_type.elem_type for value in _values(graph)}
    if known.get("features") != onnx.TensorProto.FLOAT:
        return {"detect": graph}
    absent = AFFINITY_TENSORS - known.keys()
    extractor = onnx.utils.Extractor(graph)
    graphs = {}
    for part in PARTS:
        inputs, outputs = ([name for name in names if name not in absent] for names in (part.inputs, part.outputs))
        graphs[part.name] = extractor.extract_model(inputs, outputs)
        graphs[part.name].graph.name = part.name
    if not absent:
        graphs["agree"] = _agree(graph)
    for part_graph in graphs.values():
        part_graph.producer_name = graph.producer_name
        onnx.checker.check_model(part_graph, full_check=True)
    return graphs


def _values(graph: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.graph.input
    yield from graph.graph.value_info
    yield from graph.graph.output


def _agree(graph: onnx.ModelProto) -> onnx.ModelProto:
    shape = next(value.type.tensor_type.shape for value in _values(graph) if value.name == "features")
    channels, height, width = (dimension.dim_value for dimension in shape.dim[1:])
    opset = next(entry.version for entry in graph.opset_import if not entry.domain)
    sizes: Mapping[str, int] = {
        "opset": opset, "channels": channels, "height": height, "width": width, "pixels": height * width,
    }  # fmt: skip
    return onnx.parser.parse_model(AGREE.format(**sizes))
