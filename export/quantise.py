"""INT8: the network's convolutions between QuantizeLinear and DequantizeLinear, which every engine understands.

1. On real groups it is seen what every convolution reads (`activation_samples`).
2. From that come the steps, and the mean error, which is put into the biases (`quantisation_plan`).
3. Layers that do more harm than good stay in float (`quantisation_islands`), and so do sums, resizing and the operators
   of `ai.gconet`, which stay nodes.

What stays in float is float32; or, for engines that take the graph's types as binding, half precision with the islands
of `precision`. The network is then equalised before it is calibrated, and steps between half tensors are half too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

from gconet.export.activation_samples import sample_inputs
from gconet.export.equalise import equalise
from gconet.export.inference import InferenceNetwork
from gconet.export.operators import OPSET
from gconet.export.precision import TYPES, islands, narrow
from gconet.export.quantisation_islands import planned_int8
from gconet.export.quantisation_plan import LayerPlan, plan_layers
from gconet.export.to_onnx import export_network
from gconet.runtime.preprocess import FloatArray
from gconet.train.model import GCoNet

HALF_STEPS_OPSET = 19  # the first whose QuantizeLinear takes float16


@dataclass(frozen=True)
class Quantisable:
    """A graph in floating point, and how each of its convolutions would be rounded, by layer."""

    graph: onnx.ModelProto
    plans: Mapping[str, LayerPlan]


def prepare(
    model: GCoNet,
    groups: Sequence[FloatArray],
    unsigned: bool,
    progress: Callable[[], object] = lambda: None,
    floats: str = "fp32",
) -> Quantisable:
    """Calibrate on groups of inputs (N, 3, S, S), and export a graph for inputs of their size; see `calibrate`."""
    network, plans = calibrate(model, groups, unsigned, progress, floats)
    opset = OPSET if floats == "fp32" else HALF_STEPS_OPSET
    return Quantisable(export_network(network, groups[0].shape[-1], opset), plans)


def calibrate(
    model: GCoNet,
    groups: Sequence[FloatArray],
    unsigned: bool,
    progress: Callable[[], object] = lambda: None,
    floats: str = "fp32",
) -> tuple[InferenceNetwork, dict[str, LayerPlan]]:
    """The inference network in the types of what stays in float, not rounded yet, and the plans of its convolutions.

    Parameters
    ----------
    model : left unchanged.
    groups : inputs (N, 3, S, S), at least one group.
    unsigned : see `plan_layers`.
    progress : called after every group.
    floats : "fp32" or "fp16", the type of what stays in float.
    """
    network = InferenceNetwork(copy.deepcopy(model))
    if floats == "fp32":
        return network, plan_layers(network, sample_inputs(network, groups, progress), unsigned)
    found = equalise(network, groups)
    inputs = sample_inputs(network, groups, progress)
    plans = plan_layers(network, inputs, unsigned, inputs.keys() - set(islands(TYPES[floats], found)))
    narrow(network, floats, found)
    return network, plans


def quantise(source: Quantisable, layers: Collection[str] | None = None) -> onnx.ModelProto:
    """The graph with some layers in INT8, None for all but the islands; the others stay in float."""
    graph = copy.deepcopy(source.graph)
    chosen = planned_int8(source.plans) if layers is None else layers
    plans = {name: plan for name, plan in source.plans.items() if name in chosen}
    if not plans:
        return graph
    convolutions = {layer_of(node): node for node in graph.graph.node if node.op_type == "Conv"}
    _shift_biases(graph, convolutions, plans)
    quantizer = QDQQuantizer(
        graph,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        # Ranges must be given, though the overrides leave nothing to find out from them.
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {convolutions[name].input[0]: (np.float32(-1), np.float32(1)) for name in plans},
        ),
        nodes_to_quantize=[convolutions[name].name for name in plans],
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv"],
        extra_options={
            "TensorQuantOverrides": _overrides(graph, convolutions, plans),
            "OpTypesToExcludeOutputQuantization": ["Conv"],
            "QuantizeBias": False,  # engines do that themselves, or add it in float
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    quantised.producer_name, quantised.producer_version = source.graph.producer_name, ""  # not the quantiser's
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def layer_of(node: onnx.NodeProto) -> str:
    """The layer a convolution of the exported graph is, by the name of its weight."""
    return node.input[1].removesuffix(".weight").removesuffix(".layer")  # the latter of `InFloat32`


def _overrides(
    graph: onnx.ModelProto, convolutions: Mapping[str, onnx.NodeProto], plans: Mapping[str, LayerPlan]
) -> dict[str, list[dict[str, Any]]]:
    """The plans in the words of ONNX Runtime's quantiser: by tensor, a list of one entry, or one for each channel."""
    zero = np.zeros((), np.int8)
    types = {tensor.name: onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type) for tensor in graph.graph.initializer}
    overrides: dict[str, list[dict[str, Any]]] = {}
    for name, plan in plans.items():
        images, weight = convolutions[name].input[:2]
        kind, type_ = (QuantType.QUInt8, np.uint8) if plan.unsigned else (QuantType.QInt8, np.int8)
        step = np.array(plan.input_step, types[weight])
        overrides[images] = [{"quant_type": kind, "scale": step, "zero_point": np.zeros((), type_)}]
        overrides[weight] = [
            {"quant_type": QuantType.QInt8, "axis": 0, "scale": np.array(step, types[weight]), "zero_point": zero}
            for step in plan.weight_steps.numpy()
        ]
    return overrides


def _shift_biases(
    graph: onnx.ModelProto, convolutions: Mapping[str, onnx.NodeProto], plans: Mapping[str, LayerPlan]
) -> None:
    """Give every planned convolution a bias of its own: the exporter merges equal ones and leaves out zeros."""
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    for name, plan in plans.items():
        data, weight, *bias = convolutions[name].input
        exact = onnx.numpy_helper.to_array(tensors[bias[0]]).astype(np.float32) if bias else np.float32(0)
        type_ = onnx.helper.tensor_dtype_to_np_dtype(tensors[weight].data_type)
        values = (exact + plan.bias_shift.numpy()).astype(type_)
        shifted = onnx.numpy_helper.from_array(values, f"{name}.shifted_bias")
        graph.graph.initializer.append(shifted)
        convolutions[name].input[:] = [data, weight, shifted.name]
