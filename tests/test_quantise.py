"""INT8: the Q/DQ graph is the network with inputs and weights rounded as planned, and engines run it as such."""

from __future__ import annotations

import copy
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime as ort
import pytest
import torch
from conftest import TINY, TINY_SIZE
from torch import Tensor, nn

from gconet.bench.reference import eager_maps
from gconet.engines.registry import get_target
from gconet.export.activation_samples import sample_inputs
from gconet.export.audit import audit_graph
from gconet.export.calibration import read_calibration
from gconet.export.graphs import TAKES_UNSIGNED, make_graph
from gconet.export.inference import InferenceNetwork
from gconet.export.quantisation_islands import ISLANDS, int8_layers, planned_int8
from gconet.export.quantisation_plan import (
    HEAD_ROOM,
    PEAK_QUANTILE,
    SIGNED_LEVELS,
    UNSIGNED_LEVELS,
    plan_layers,
    round_to,
    round_weight,
    shared_inputs,
    taps,
)
from gconet.export.quantise import Quantisable, layer_of, prepare, quantise
from gconet.runtime.preprocess import FloatArray, Preprocessing
from gconet.train.checkpoint import Checkpoint, random_checkpoint
from gconet.train.model import Architecture, GCoNet

Bundles = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def groups() -> list[FloatArray]:
    """The example photos, as the tiny network takes them: four groups of five."""
    return read_calibration(None, Preprocessing(TINY_SIZE))


@pytest.fixture(scope="module")
def unsigned(tiny_network: GCoNet, groups: list[FloatArray]) -> Quantisable:
    """The tiny network, unsigned where that is possible."""
    return prepare(tiny_network, groups, unsigned=True)


@pytest.fixture(scope="module")
def signed(tiny_network: GCoNet, groups: list[FloatArray], unsigned: Quantisable) -> Quantisable:
    """The tiny network, signed everywhere."""
    network = InferenceNetwork(tiny_network)
    return Quantisable(unsigned.graph, plan_layers(network, sample_inputs(network, groups), unsigned=False))


def run_graph(graph: onnx.ModelProto, images: FloatArray) -> FloatArray:
    """Maps by the definition of the operators: nothing fused, every rounding where it is drawn."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    maps: FloatArray = session.run(["maps"], {"images": images})[0]
    return maps


def zero_points(graph: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Zero points of the activations, by tensor."""
    initialisers = {tensor.name: tensor for tensor in graph.graph.initializer}
    return {node.input[0]: initialisers[node.input[2]] for node in graph.graph.node if node.op_type == "QuantizeLinear"}


# The plan


def test_every_convolution_is_planned_once(unsigned: Quantisable, tiny_network: GCoNet) -> None:
    convolutions = [layer_of(node) for node in unsigned.graph.graph.node if node.op_type == "Conv"]
    assert sorted(unsigned.plans) == sorted(convolutions)
    readers = [name for names in shared_inputs(InferenceNetwork(tiny_network)) for name in names]
    assert sorted(readers) == sorted(convolutions)


def test_the_peak_of_every_photo_is_seen(tiny_network: GCoNet, groups: list[FloatArray]) -> None:
    found = sample_inputs(InferenceNetwork(tiny_network), groups)["encoder.conv1.conv1_1"]
    images = np.concatenate(groups)
    np.testing.assert_array_equal(found.peaks, np.abs(images).max(axis=(1, 2, 3)))
    assert found.signed
    assert found.pixels.shape[0] % len(images) == 0
    values = set(images.transpose(0, 2, 3, 1).reshape(-1, 3)[:, 0].tolist())
    assert set(found.pixels[:, 0].tolist()) <= values


def test_ranges_are_what_most_photos_reach_and_fit_the_sign(
    unsigned: Quantisable, signed: Quantisable, tiny_network: GCoNet, groups: list[FloatArray]
) -> None:
    inputs = sample_inputs(InferenceNetwork(tiny_network), groups)
    after_relu, sums = "encoder.conv3.conv3_2", "decoder.levels.1.fuse.0"
    assert not unsigned.plans["encoder.conv1.conv1_1"].unsigned
    assert not unsigned.plans[sums].unsigned
    assert unsigned.plans[after_relu].unsigned
    assert not signed.plans[after_relu].unsigned
    wanted = HEAD_ROOM * np.quantile(inputs[after_relu].peaks, PEAK_QUANTILE)
    assert unsigned.plans[after_relu].input_step * UNSIGNED_LEVELS == pytest.approx(wanted, rel=1e-5)
    assert signed.plans[after_relu].input_step * SIGNED_LEVELS == pytest.approx(wanted, rel=1e-5)
    wanted = HEAD_ROOM * np.quantile(inputs[sums].peaks, PEAK_QUANTILE)
    assert unsigned.plans[sums].input_step * SIGNED_LEVELS == pytest.approx(wanted, rel=1e-5)


def test_readers_of_one_tensor_share_its_step(unsigned: Quantisable) -> None:
    through_pooling, direct = unsigned.plans["encoder.conv4.conv4_1"], unsigned.plans["decoder.levels.3.lateral.0"]
    assert through_pooling.input_step == direct.input_step


def test_calibration_sees_whole_groups(tiny_network: GCoNet, groups: list[FloatArray]) -> None:
    network = InferenceNetwork(tiny_network)
    together = sample_inputs(network, groups)
    alone = sample_inputs(network, [image[None] for images in groups for image in images])
    photo_by_photo, by_group = "encoder.conv5.conv5_3", "decoder.top.0"
    torch.testing.assert_close(together[photo_by_photo].peaks, alone[photo_by_photo].peaks)
    assert not torch.allclose(together[by_group].peaks, alone[by_group].peaks, rtol=1e-3)


def test_the_bias_makes_up_for_the_mean_error(
    unsigned: Quantisable, tiny_network: GCoNet, groups: list[FloatArray]
) -> None:
    name = "decoder.top.2"  # 1×1: the mean output follows from the mean input, borders included
    network = InferenceNetwork(tiny_network)
    pixels, weight = sample_inputs(network, groups)[name].pixels, network.get_submodule(name).get_parameter("weight")
    plan = unsigned.plans[name]
    found = taps(round_weight(weight)[0]) @ round_to(pixels, plan.input_step, UNSIGNED_LEVELS).T
    error = (found - taps(weight) @ pixels.T).mean(dim=1)
    assert error.abs().max() > 1e-5
    torch.testing.assert_close(error + plan.bias_shift, torch.zeros_like(error), rtol=0, atol=1e-6)


def test_weights_are_rounded_channel_by_channel() -> None:
    weight = torch.randn(3, 4, 3, 3) * torch.tensor([1.0, 100.0, 0.0])[:, None, None, None]
    rounded, steps = round_weight(weight)
    torch.testing.assert_close(steps[:2], weight[:2].abs().amax(dim=(1, 2, 3)) / 127)
    assert ((rounded - weight).abs() <= steps[:, None, None, None] / 2 + 1e-6).all()
    assert (rounded[2] == 0).all()


# The graph


def test_the_graph_is_the_network_with_inputs_and_weights_rounded(
    unsigned: Quantisable, tiny_network: GCoNet, groups: list[FloatArray]
) -> None:
    assert_is_rounded(unsigned, tiny_network, groups[0])


def test_biases_that_the_exporter_merges_are_corrected_one_by_one(groups: list[FloatArray]) -> None:
    model = random_checkpoint(seed=4, architecture=TINY).network()  # every bias is 0: one tensor in the graph
    assert_is_rounded(prepare(model, groups, unsigned=True), model, groups[0])


def assert_is_rounded(source: Quantisable, model: GCoNet, images: FloatArray) -> None:
    """Compare with a second implementation: PyTorch, layers rounded by hooks."""
    layers = int8_layers(source.plans)
    network = InferenceNetwork(copy.deepcopy(model))
    for name in layers:
        layer, plan = network.get_submodule(name), source.plans[name]
        assert isinstance(layer, nn.Conv2d)
        with torch.no_grad():
            layer.weight.copy_(round_weight(layer.weight)[0])
            layer.get_parameter("bias").add_(plan.bias_shift)
        bounds = (0, 255) if plan.unsigned else (-128, 127)

        def rounded(
            _: nn.Module, x: tuple[Tensor], step: float = plan.input_step, bounds: tuple[int, int] = bounds
        ) -> tuple[Tensor]:
            return ((x[0] / step).round().clamp(*bounds) * step,)

        layer.register_forward_pre_hook(rounded)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(images)).numpy()
    found = run_graph(quantise(source), images)
    exact = eager_maps(model, images)
    difference = np.abs(found - wanted)
    # A value on the edge between two steps may fall to either side: a few pixels, and much less than INT8 itself moves.
    assert difference.mean() < 0.05 * np.abs(exact - wanted).mean()
    assert np.abs(exact - wanted).mean() > 1e-4


@pytest.mark.parametrize("kind", ["unsigned", "signed"])
def test_operators_of_the_domain_and_the_opset_survive(kind: str, request: pytest.FixtureRequest) -> None:
    graph = quantise(request.getfixturevalue(kind))
    assert {node.op_type for node in graph.graph.node if node.domain} == {"GroupAffinity", "DepthwiseCorrelation"}
    assert {function.name for function in graph.functions} == {"GroupAffinity", "DepthwiseCorrelation"}
    assert {opset.domain: opset.version for opset in graph.opset_import} == {"": 18, "ai.gconet": 1}
    assert graph.producer_name == "gconet-deploy"
    axis = graph.graph.input[0].type.tensor_type.shape.dim[0]
    assert axis.dim_param


def test_only_the_islands_stay_in_float(unsigned: Quantisable) -> None:
    graph = quantise(unsigned)
    dequantised = {node.output[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"}
    in_float = {
        node.input[1].removesuffix(".weight")
        for node in graph.graph.node
        if node.op_type == "Conv" and node.input[1] not in dequantised
    }
    assert in_float == set(unsigned.plans) - set(int8_layers(unsigned.plans))
    assert "decoder.levels.1.side.4" in in_float
    weights = [tensor for tensor in graph.graph.initializer if tensor.name.endswith(".weight_quantized")]
    assert len(weights) == len(int8_layers(unsigned.plans))
    assert all(tensor.data_type == onnx.TensorProto.INT8 for tensor in weights)


def test_every_island_has_a_reason_and_matches_a_layer(unsigned: Quantisable) -> None:
    for island in ISLANDS:
        assert any(figure.isdigit() for figure in island.reason), "a reason without a figure is folklore"
        matched = {layer for layer in unsigned.plans if fnmatchcase(layer, island.pattern)}
        assert matched
        assert not matched & set(int8_layers(unsigned.plans, signed=True))
        assert bool(matched & set(planned_int8(unsigned.plans))) == island.signed


def test_signed_graphs_have_no_unsigned_integer_and_no_offset(signed: Quantisable, unsigned: Quantisable) -> None:
    """TensorRT would read unsigned values as signed, and says so only in its log."""
    found = zero_points(quantise(signed))
    assert {tensor.data_type for tensor in found.values()} == {onnx.TensorProto.INT8}
    assert all((onnx.numpy_helper.to_array(tensor) == 0).all() for tensor in found.values())
    mixed = zero_points(quantise(unsigned))
    assert {tensor.data_type for tensor in mixed.values()} == {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert all((onnx.numpy_helper.to_array(tensor) == 0).all() for tensor in mixed.values())


def test_no_layer_in_int8_is_the_exact_graph(
    unsigned: Quantisable, tiny_network: GCoNet, groups: list[FloatArray]
) -> None:
    graph = quantise(unsigned, [])
    assert audit_graph(graph).operations.keys() == {"fp32"}
    np.testing.assert_allclose(run_graph(graph, groups[1]), eager_maps(tiny_network, groups[1]), rtol=0, atol=1e-5)


def test_quantising_leaves_its_source_alone(unsigned: Quantisable) -> None:
    before = unsigned.graph.SerializeToString()
    quantise(unsigned)
    quantise(unsigned, ["encoder.conv2.conv2_2"])
    assert unsigned.graph.SerializeToString() == before


def test_one_layer_alone(unsigned: Quantisable) -> None:
    graph = quantise(unsigned, ["encoder.conv2.conv2_1"])  # reads what pooling gives, which no other layer reads
    assert len(zero_points(graph)) == 1
    assert 0 < audit_graph(graph).share("int8") < 0.2


def test_the_baseline_without_affinity_is_quantised_too(groups: list[FloatArray]) -> None:
    architecture = Architecture(False, False, False, 5, TINY.encoder_channels, TINY.decoder_channels)
    model = random_checkpoint(seed=3, architecture=architecture).network()
    maps = run_graph(quantise(prepare(model, groups, unsigned=True)), groups[0])
    assert np.abs(maps - eager_maps(model, groups[0])).mean() < 0.05


def test_graphs_for_nvidia_are_signed(tiny_checkpoint: Checkpoint) -> None:
    assert {name for name, unsigned in TAKES_UNSIGNED.items() if not unsigned} == {"tensorrt", "tensorrt-rtx"}
    for name in ("tensorrt-rtx", "openvino"):
        graph = make_graph(tiny_checkpoint, "int8", get_target(name), None)
        types = {tensor.data_type for tensor in zero_points(graph).values()}
        assert (onnx.TensorProto.UINT8 in types) == TAKES_UNSIGNED[name]
