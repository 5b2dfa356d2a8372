"""Names for the tensors inside the exported graph at which `gconet.engines.graph_parts` cuts it."""

from __future__ import annotations

import onnx

LATERAL_CONVOLUTIONS = {f"decoder.levels.{level}.lateral.2.weight": f"lateral_{level}" for level in (4, 3, 2)}
CONVOLUTIONS = {"gam.query.weight": "query", "gam.pixel_bias.weight": "pixel_bias", **LATERAL_CONVOLUTIONS}


def name_inner_tensors(graph: onnx.ModelProto) -> None:
    """Rename inner tensors, in place.

    `features` (group, C, h, w) is C5; `query` and `pixel_bias` are what the GAM projects it to, `attention`
    (group, 1, h, w) and `consensus` (1, C, 1, 1) the GAM's results; `lateral_k` is what the decoder's level k adds.
    """
    names: dict[str, str] = {}
    for node in graph.graph.node:
        if node.op_type == "DepthwiseCorrelation":
            names |= dict(zip(node.input, ("features", "consensus"), strict=True))
        elif node.op_type == "GroupAffinity":
            names[node.output[0]] = "attention"
        elif node.op_type == "Conv" and node.input[1] in CONVOLUTIONS:
            names[node.output[0]] = CONVOLUTIONS[node.input[1]]
    for node in graph.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in graph.graph.value_info:
        value.name = names.get(value.name, value.name)
