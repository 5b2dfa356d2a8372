"""Layer times of OpenVINO bundles, by its performance counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gconet.bench.bisect_graph import PARAMETER
from gconet.bench.layer_times import ExecutedLayer, Tensor, arrow, count_flop, kind_of
from gconet.runtime.bundle import Bundle
from gconet.runtime.openvino_session import OpenVinoSession
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import SessionOptions

EXECUTED = "EXECUTED"
# OpenVINO's names of types, where not ours.
TYPES: Mapping[str, str] = {"f32": "fp32", "f16": "fp16", "boolean": "bool"}


class OpenVinoProfiler:
    """Runs a bundle with `PERF_COUNT`; see `LayerProfiler`.

    OpenVINO reports the mean over all calls so far in whole microseconds. The time of call k comes back as the k-fold
    mean less the (k−1)-fold of the call before, to k microseconds: enough for layers that matter.
    """

    def __init__(self, bundle: Bundle, threads: int | None, folder: Path) -> None:
        self._session = OpenVinoSession(bundle, SessionOptions(threads=threads, layer_times=folder))
        self._request: Any = None
        self._means: list[dict[str, float]] = []  # of each call: node -> mean so far, µs
        self._info: dict[str, Any] = {}  # node -> the last counter

    def infer(self, images: FloatArray) -> object:
        """Run one group."""
        answer = self._session.infer({"images": images})
        self._request = self._session.infer_request(images.shape)
        self._info = {i.node_name: i for i in self._request.get_profiling_info() if i.status.name == EXECUTED}
        self._means.append({name: info.real_time.total_seconds() * 1e6 for name, info in self._info.items()})
        return answer

    def layers(self, calls: int) -> list[ExecutedLayer]:
        """What was executed."""
        first = len(self._means) - calls
        samples = {
            name: [us / 1000 for us in each_call([means[name] for means in self._means])[first:]] for name in self._info
        }
        graph = self._request.get_compiled_model().get_runtime_model()
        return _executed(_steps(graph), self._info, samples)


def each_call(means: Sequence[float]) -> list[float]:
    """Times of single calls from the means over all calls so far."""
    totals = [0.0, *(mean * count for count, mean in enumerate(means, start=1))]
    return [after - before for before, after in pairwise(totals)]


@dataclass(frozen=True)
class _Input:
    """What a node reads: the node that makes it, and how it lies in memory, such as acdb for channels last."""

    source: str
    tensor: Tensor
    layout: str


@dataclass(frozen=True)
class _Step:
    """A node of OpenVINO's executable graph, whose nodes have one output; `kind` and `facts` are OpenVINO's."""

    name: str
    kind: str
    facts: Mapping[str, str]
    inputs: Sequence[_Input]
    output: Tensor


def _executed(
    steps: Sequence[_Step], info: Mapping[str, Any], samples: Mapping[str, Sequence[float]]
) -> list[ExecutedLayer]:
    """Those of the steps that have a counter, with names by the weights they read or come from."""
    constants = {step.name for step in steps if step.kind == "Const"}
    above: dict[str, frozenset[str]] = {}  # node -> modules its value comes from
    layers = []
    for step in steps:
        read = [PARAMETER.match(i.source) for i in step.inputs if i.source in constants]
        module = next((match["layer"] for match in read if match), None)
        sources = frozenset[str]().union(*(above.get(i.source, frozenset()) for i in step.inputs))
        above[step.name] = frozenset({module}) if module else sources
        if step.name in info:
            counter = info[step.name]
            name = module or f"{counter.node_type}({', '.join(sorted(sources)) or 'images'})"
            layers.append(_layer(step, name, counter, constants, samples[step.name]))
    return layers


def _layer(step: _Step, name: str, counter: Any, constants: set[str], samples: Sequence[float]) -> ExecutedLayer:
    operation, kernel = counter.node_type, counter.exec_type
    kind, precision = kind_of(operation, name), _type(step.facts["runtimePrecision"])
    # Weights were converted once, when the model was compiled.
    inputs = [Tensor(i.tensor.shape, precision) if i.source in constants else i.tensor for i in step.inputs]
    if operation == "Reorder":
        precision = inputs[0].type
        kind = "reorder" if precision == step.output.type else "convert"
        if step.inputs[0].layout != step.facts["outputLayouts"]:
            kernel += f" {arrow(step.inputs[0].layout, step.facts['outputLayouts'])}"
    elif all(part.endswith("QuantizeLinear") for part in step.facts["originalLayersNames"].split(",")):
        kind = "convert"  # fused with nothing
    return ExecutedLayer(
        name=name,
        node=step.name,
        kind=kind,
        kernel=kernel,
        precision=arrow(precision, step.output.type),
        flop=count_flop(operation, inputs, step.output),
        bytes=sum(tensor.bytes for tensor in (*inputs, step.output)),
        samples_ms=samples,
    )


def _steps(graph: Any) -> list[_Step]:
    """The executable graph in order of execution, with weights before what reads them."""
    nodes = {node.get_friendly_name(): node for node in graph.get_ordered_ops()}
    facts = {name: _facts(node) for name, node in nodes.items()}
    outputs = {
        name: Tensor(tuple(node.get_output_shape(0)), _type(facts[name]["outputPrecisions"]))
        for name, node in nodes.items()
        if node.get_output_size()
    }
    steps = []
    for name in outputs:
        sources = [i.get_source_output().get_node().get_friendly_name() for i in nodes[name].inputs()]
        inputs = [_Input(source, outputs[source], facts[source]["outputLayouts"]) for source in sources]
        steps.append(_Step(name, facts[name]["layerType"], facts[name], inputs, outputs[name]))
    return sorted(steps, key=lambda step: int(step.facts["execOrder"]))


def _facts(node: Any) -> dict[str, str]:
    return {key: str(getattr(value, "value", value)) for key, value in node.get_rt_info().items()}


def _type(name: str) -> str:
    return TYPES.get(name, name)
