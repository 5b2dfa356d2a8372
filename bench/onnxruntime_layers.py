"""Layer times of ONNX Runtime bundles, from the trace that it writes."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gconet.bench.bisect_graph import PARAMETER, name_layers, name_modules, onnx_graph
from gconet.bench.layer_times import ExecutedLayer, Tensor, arrow, count_flop, kind_of
from gconet.engines.installed import import_or_explain
from gconet.runtime.bundle import Bundle
from gconet.runtime.onnxruntime_session import OnnxRuntimeSession
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import SessionOptions

if TYPE_CHECKING:
    import onnx

TIMED, BLOCKED = "_kernel_time", "_nchwc"  # ends of names: an event that is a kernel; a node in a blocked layout
MOVED = re.compile(rf"({BLOCKED}|_token_\d+)$")  # what ONNX Runtime appends to names of nodes it gave another layout
# ONNX Runtime's names of types, where not ours.
TYPES: Mapping[str, str] = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "uint8": "u8",
    "int8": "i8",
    "int32": "i32",
    "int64": "i64",
}
Event = Mapping[str, Any]


@dataclass(frozen=True)
class GraphNames:
    """What a graph calls its layers: names by node or tensor, and the shapes of modules' convolution weights."""

    layers: Mapping[str, str]
    weights: Mapping[str, tuple[int, ...]]


class OnnxRuntimeProfiler:
    """Runs a bundle with ONNX Runtime's profiling on; see `LayerProfiler`."""

    def __init__(self, bundle: Bundle, threads: int | None, folder: Path) -> None:
        self._names = name_graph(import_or_explain("onnx", ("onnx",)).load(bundle.file("detect.onnx")))
        self._session = OnnxRuntimeSession(bundle, SessionOptions(threads=threads, layer_times=folder))

    def infer(self, images: FloatArray) -> object:
        """Run one group."""
        return self._session.infer({"images": images})

    def layers(self, calls: int) -> list[ExecutedLayer]:
        """What was executed."""
        events = json.loads(self._session.end_layer_times().read_text("utf-8"))
        return executed_layers(events, self._names, calls)


def executed_layers(events: Sequence[Event], names: GraphNames, calls: int) -> list[ExecutedLayer]:
    """Layers of the last calls in a trace; those without a name in the graph keep the node's."""
    runs = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "model_run")[-calls:]
    nodes = sorted((e for e in events if e["cat"] == "Node" and e["name"].endswith(TIMED)), key=lambda e: e["ts"])
    samples: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(runs))
    first: dict[str, Event] = {}
    for index, (start, end) in enumerate(runs):
        for event in nodes:
            if start <= event["ts"] < end:
                name = event["name"].removesuffix(TIMED)
                samples[name][index] += event["dur"] / 1000
                first.setdefault(name, event["args"])
    return [_layer(node, first[node], names, samples[node]) for node in first]


def name_graph(model: onnx.ModelProto) -> GraphNames:
    """Names for the nodes of an optimised graph, which are called by a node or a tensor of the graph as it was."""
    graph = onnx_graph(model)
    tensors = {tensor: layer for layer, tensor in name_layers(graph).items()} | name_modules(graph)
    nodes = {
        node.name or f"{node.op_type}_{index}": tensors[node.output[0]]  # as ONNX Runtime calls what has no name
        for index, node in enumerate(model.graph.node)
        if node.output[0] in tensors
    }
    matches = [(PARAMETER.match(tensor.name), tuple(tensor.dims)) for tensor in model.graph.initializer]
    weights = {match["layer"]: shape for match, shape in matches if match and len(shape) == 4}
    return GraphNames(nodes | tensors, weights)


def _layer(node: str, facts: Event, names: GraphNames, samples: Sequence[float]) -> ExecutedLayer:
    operation = facts["op_name"]
    name = names.layers.get(MOVED.sub("", node), node)
    inputs, outputs = (_tensors(facts[f"{side}_type_shape"]) for side in ("input", "output"))
    output = outputs[0] if outputs else Tensor((), "fp32")
    arithmetic = inputs[0].type if inputs else output.type
    # The trace has no shape for weights that were packed when the session was made.
    packed = name in names.weights and not any(len(tensor.shape) == 4 for tensor in inputs[1:])
    inputs += [Tensor(names.weights[name], arithmetic)] if packed else []
    layout = " blocked" if node.endswith(BLOCKED) else ""
    return ExecutedLayer(
        name=name,
        node=node,
        kind=kind_of(operation, name),
        kernel=f"{facts['provider'].removesuffix('ExecutionProvider')} {operation}{layout}",
        precision=arrow(arithmetic, output.type),
        flop=count_flop(operation, inputs, output),
        bytes=sum(tensor.bytes for tensor in (*inputs, *outputs)),
        samples_ms=samples,
    )


def _tensors(described: Sequence[Mapping[str, Sequence[int]]]) -> list[Tensor]:
    return [Tensor(tuple(shape), TYPES.get(name, name)) for entry in described for name, shape in entry.items()]
