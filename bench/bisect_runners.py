"""Polygraphy runners that give the value of every layer: of the exported fp32 graph, and of a bundle's artefact.

Reading tensors out keeps an engine from fusing across them: an artefact is looked at nearly, not exactly, as it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gconet.bench.bisect_graph import Graph, name_layers, onnx_graph, openvino_graph
from gconet.engines.installed import import_or_explain
from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import TargetError, one_line
from gconet.runtime.openvino_session import DEVICE, precision_hint
from gconet.runtime.preprocess import FloatArray

if TYPE_CHECKING:
    import onnx

LayerValues = dict[str, NDArray[np.floating[Any]]]  # by name, in the order of computation
POLYGRAPHY = ("polygraphy",)
READABLE_TARGETS = ("onnxruntime", "openvino")

# Where an integer operation of ONNX Runtime has the scale of its output among its inputs; the zero point follows.
OUTPUT_SCALE: Mapping[str, int] = {
    "QuantizeLinear": 1,
    "QLinearSigmoid": 3,
    "QLinearAveragePool": 3,
    "QLinearConv": 6,
    "QLinearMatMul": 6,
    "QLinearAdd": 6,
    "QLinearMul": 6,
    "QGemm": 7,
}
KEEPS_SCALE = frozenset({"MaxPool", "Resize", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"})


@dataclass(frozen=True)
class LayerRunner:
    """A graph, its layers (name to tensor), and a Polygraphy runner whose outputs are those tensors."""

    graph: Graph
    layers: Mapping[str, str]
    runner: Any

    def run(self, images: FloatArray) -> LayerValues:
        """The value of every layer for one group of network inputs (N, 3, S, S); raises TargetError."""
        with _polygraphy_errors(self.runner.name), self.runner as active:
            outputs = active.infer({"images": images}, check_inputs=False)
            return {layer: np.array(outputs[tensor]) for layer, tensor in self.layers.items()}


def graph_runner(model: onnx.ModelProto) -> LayerRunner:
    """Run an exported graph by ONNX Runtime, nothing optimised."""
    import onnx.inliner

    return _onnx_runner(onnx.inliner.inline_local_functions(model), "exported graph", optimise=False)


def bundle_runner(bundle: Bundle) -> LayerRunner:
    """Run a bundle's artefact, in the bundle's precision.

    Raises
    ------
    TargetError
        If the target keeps its inner tensors to itself, or a library is missing.
    """
    problem = why_not_readable(bundle)
    if problem:
        raise TargetError(problem)
    if bundle.manifest.target == "openvino":
        return _openvino_runner(bundle)
    import onnx

    return _onnx_runner(onnx.load(bundle.file("detect.onnx")), bundle.folder.name, optimise=True)


def why_not_readable(bundle: Bundle) -> str | None:
    """None if the layers of a bundle's artefact can be read, else why not and what to look at."""
    if bundle.manifest.target in READABLE_TARGETS:
        return None
    return (
        f"{bundle.folder}: the layers of a finished {bundle.manifest.target} engine cannot be read; look into a bundle "
        f"of {' or '.join(READABLE_TARGETS)} in the same precision"
    )


def _onnx_runner(model: onnx.ModelProto, name: str, optimise: bool) -> LayerRunner:
    ort = import_or_explain("onnxruntime", ("onnxruntime",))
    loaders = import_or_explain("polygraphy.backend.onnx", POLYGRAPHY)
    runners = import_or_explain("polygraphy.backend.onnxrt", POLYGRAPHY)
    graph = onnx_graph(model)
    layers = name_layers(graph)
    readable = _dequantised(model, set(layers.values()))
    layers = {layer: readable[tensor] for layer, tensor in layers.items()}

    def session() -> Any:
        marked = loaders.ModifyOutputs(model, outputs=list(layers.values()))()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if not optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(marked.SerializeToString(), options, providers=["CPUExecutionProvider"])

    return LayerRunner(graph, layers, runners.OnnxrtRunner(session, name=name))


def _dequantised(model: onnx.ModelProto, tensors: set[str]) -> dict[str, str]:
    """For each tensor one of floats: itself, or for integers the output of a DequantizeLinear that is added."""
    import onnx

    scales: dict[str, tuple[str, ...]] = {}  # integer tensor -> its scale and zero point
    for node in model.graph.node:
        if node.op_type in OUTPUT_SCALE:
            position = OUTPUT_SCALE[node.op_type]
            scales[node.output[0]] = tuple(node.input[position : position + 2])
        elif node.op_type in KEEPS_SCALE and node.input[0] in scales:
            scales[node.output[0]] = scales[node.input[0]]
    readable = {tensor: f"{tensor}/as_float" if tensor in scales else tensor for tensor in tensors}
    model.graph.node.extend(
        onnx.helper.make_node("DequantizeLinear", [tensor, *scales[tensor]], [name])
        for tensor, name in sorted(readable.items())
        if tensor != name
    )
    return readable


def _openvino_runner(bundle: Bundle) -> LayerRunner:
    ov = import_or_explain("openvino", ("openvino",))
    base: Any = import_or_explain("polygraphy.backend.base", POLYGRAPHY).BaseRunner
    core = ov.Core()
    files = bundle.file("detect.xml"), bundle.file(".bin")
    model = core.read_model(*files)
    graph = openvino_graph(model)
    layers = name_layers(graph)

    class OpenVinoRunner(base):  # type: ignore[misc]
        """Compiles the model with all layers as outputs, in float32, for the shape of its input."""

        def infer_impl(self, feed_dict: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
            marked = core.read_model(*files)
            marked.reshape(list(feed_dict["images"].shape))
            operations = {operation.get_friendly_name(): operation for operation in marked.get_ordered_ops()}
            outputs = [ov.opset13.convert(operations[tensor].output(0), "f32") for tensor in layers.values()]
            marked = ov.Model(outputs, marked.get_parameters())
            hint = precision_hint(bundle.manifest.precision, core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))
            compiled = core.compile_model(marked, DEVICE, {"INFERENCE_PRECISION_HINT": hint})
            request = compiled.create_infer_request()
            request.infer(dict(feed_dict))
            return {tensor: request.get_output_tensor(index).data for index, tensor in enumerate(layers.values())}

    return LayerRunner(graph, layers, OpenVinoRunner(name=bundle.folder.name))


@contextlib.contextmanager
def _polygraphy_errors(name: str) -> Iterator[None]:
    """Silence Polygraphy's log, which goes to the screen, and raise TargetError for what the engine refuses."""
    logger = import_or_explain("polygraphy.logger", POLYGRAPHY).G_LOGGER
    try:
        with logger.verbosity(logger.CRITICAL):
            yield
    except Exception as error:  # each library has classes of its own
        raise TargetError(f"the layers of {name} cannot be run: {one_line(error)}") from error
