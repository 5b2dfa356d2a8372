"""INT8 for NVIDIA's engines: what is not rounded is half precision, equalised, with half-precision steps."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from conftest import TINY_SIZE, require_tensorrt_rtx
from onnx import TensorProto, numpy_helper
from tensorrt_builds import ONE_PROFILE

from gconet.bench import tolerances
from gconet.bench.parity_statistics import compare
from gconet.bench.reference import eager_maps
from gconet.bench.tolerances import TOLERANCES, Tolerance
from gconet.engines.registry import get_target
from gconet.engines.target import EngineSpec
from gconet.engines.tensorrt_builder import plan_facts
from gconet.export import build_engine
from gconet.export.audit import audit_graph
from gconet.export.calibration import read_calibration
from gconet.export.graphs import FLOATS_OF_INT8, make_graph
from gconet.export.quantisation_islands import planned_int8
from gconet.export.quantisation_plan import LayerPlan, half_not_below
from gconet.export.quantise import Quantisable, calibrate, layer_of, prepare, quantise
from gconet.export.rounded_convolutions import RoundedConvolution, round_convolutions
from gconet.export.typed_parity import graph_network, measure_typed_parity
from gconet.export.wide_accumulation import accumulate_widely
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import run
from gconet.runtime.preprocess import FloatArray, Photo, Preprocessing, to_input
from gconet.train.checkpoint import SHIPPED, Checkpoint, read_checkpoint, save_checkpoint
from gconet.train.model import GCoNet

FLOAT32_ISLANDS = {"gam.pixel_bias", "gam.output", "decoder.levels.1.side.4"}


@pytest.fixture(scope="module")
def groups() -> list[FloatArray]:
    """The example photos, as the tiny network takes them: four groups of five."""
    return read_calibration(None, Preprocessing(TINY_SIZE))


@pytest.fixture(scope="module")
def source(tiny_network: GCoNet, groups: list[FloatArray]) -> Quantisable:
    """The tiny network, signed, in half precision."""
    return prepare(tiny_network, groups, unsigned=False, floats="fp16")


@pytest.fixture(scope="module")
def graph(source: Quantisable) -> onnx.ModelProto:
    """Its Q/DQ graph."""
    return quantise(source)


def run_graph(graph: onnx.ModelProto, images: FloatArray) -> FloatArray:
    """Maps by the definition of the operators, nothing fused."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    maps: FloatArray = session.run(["maps"], {"images": images})[0]
    return maps


# The graph


def test_only_targets_whose_types_are_the_graphs_have_it() -> None:
    assert {name for name, floats in FLOATS_OF_INT8.items() if floats == "fp16"} == {"tensorrt", "tensorrt-rtx"}


def test_everything_is_int8_or_half_but_the_float32_islands(graph: onnx.ModelProto, source: Quantisable) -> None:
    initialisers = {tensor.name: tensor for tensor in graph.graph.initializer}
    floats = {name for name, tensor in initialisers.items() if tensor.data_type == TensorProto.FLOAT}
    layers = {name.rpartition(".")[0].removesuffix(".layer") for name in floats if name.endswith((".weight", ".bias"))}
    assert layers == FLOAT32_ISLANDS
    rounded = [name for name in initialisers if name.endswith(".weight_quantized")]
    assert len(rounded) == len(planned_int8(source.plans)) == 26
    for node in graph.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert initialisers[node.input[1]].data_type == TensorProto.FLOAT16
            assert initialisers[node.input[2]].data_type == TensorProto.INT8
            assert not numpy_helper.to_array(initialisers[node.input[2]]).any()
    operations = audit_graph(graph).operations
    assert set(operations) == {"int8", "fp16", "fp32"}
    assert operations["int8"] / sum(operations.values()) > 0.9  # conv5 is in half


def test_operators_of_the_domain_survive_at_an_opset_that_has_half_steps(graph: onnx.ModelProto) -> None:
    assert {node.op_type for node in graph.graph.node if node.domain} == {"GroupAffinity", "DepthwiseCorrelation"}
    assert {opset.domain: opset.version for opset in graph.opset_import} == {"": 19, "ai.gconet": 1}
    assert {entry.version for function in graph.functions for entry in function.opset_import} == {19}
    kinds = [(port.name, port.type.tensor_type.elem_type) for port in (*graph.graph.input, *graph.graph.output)]
    assert kinds == [("images", TensorProto.FLOAT), ("maps", TensorProto.FLOAT)]


def test_an_island_can_be_rounded_too_and_its_steps_are_float32(source: Quantisable) -> None:
    graph = quantise(source, ["decoder.levels.1.side.4", "encoder.conv2.conv2_2"])
    types = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    steps = [types[node.input[1]] for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(steps) == [TensorProto.FLOAT, TensorProto.FLOAT16]


# The plan


def test_steps_are_half_numbers_and_the_rounding_is_that_of_the_plain_network(
    source: Quantisable, tiny_network: GCoNet, groups: list[FloatArray]
) -> None:
    _, plain = calibrate(tiny_network, groups, unsigned=False)
    assert source.plans.keys() == plain.keys()
    for name, plan in source.plans.items():
        if name in FLOAT32_ISLANDS:
            continue
        assert np.float16(plan.input_step) == plan.input_step
        torch.testing.assert_close(plan.weight_steps.half().float(), plan.weight_steps, rtol=0, atol=0)
        # Equalisation moves steps by powers of two, exactly; then they are rounded up to 11 bits.
        ratio = np.log2(plan.input_step / plain[name].input_step)
        assert 0 <= ratio - np.floor(ratio) < 2e-3
    moved = {np.floor(np.log2(plan.input_step / plain[name].input_step)) for name, plan in source.plans.items()}
    assert len(moved) > 2


def test_half_steps_are_the_next_that_clip_nothing() -> None:
    steps = torch.tensor([1.0, 1.0001, 0.1, 3e-5, 1e-7, 1e-9, 1000.3])
    half = half_not_below(steps)
    assert (half >= steps).all()
    assert (half[:4] <= steps[:4] * 1.002).all()
    torch.testing.assert_close(half.half().float(), half, rtol=0, atol=0)
    assert half[5] == 2**-24


# What it computes


@torch.inference_mode()
def test_the_rounded_network_is_what_the_graph_computes(
    source: Quantisable, tiny_network: GCoNet, groups: list[FloatArray]
) -> None:
    """Two implementations, the graph's operators by ONNX Runtime, and PyTorch, layer by layer.

    All layers together can only be compared in size: a value on the edge between two steps falls to either side, and
    each that does moves others to an edge.
    """
    exact = eager_maps(tiny_network, groups[0])
    network, plans = calibrate(tiny_network, groups, unsigned=False, floats="fp16")
    layers = ("encoder.conv1.conv1_1", "encoder.conv5.conv5_3", "decoder.levels.2.fuse.0", "decoder.levels.1.side.4")
    for chosen in (*((layer,) for layer in layers), planned_int8(plans)):
        rounded = copy.deepcopy(network)
        round_convolutions(rounded, plans, chosen)
        accumulate_widely(rounded)
        wanted = rounded(torch.from_numpy(groups[0])).numpy()
        found = run_graph(quantise(source, chosen), groups[0])
        moved, moved_in_graph = (float(np.abs(maps - exact).mean()) for maps in (wanted, found))
        assert moved_in_graph == pytest.approx(moved, rel=0.25), chosen
        assert moved < TOLERANCES["tensorrt-rtx", "int8"].mean_abs
        if len(chosen) == 1:
            assert moved > 3e-4  # of half precision alone it is half that
            assert np.abs(found - wanted).mean() < 0.6 * moved, chosen


@torch.inference_mode()
def test_a_rounded_convolution_is_its_definition() -> None:
    layer = torch.nn.Conv2d(2, 3, 1, dtype=torch.float16)
    plan = LayerPlan(0.5, False, torch.tensor([0.25, 0.5, 1.0]), torch.tensor([1.0, 0.0, -1.0]))
    weight, bias = (parameter.detach().float().clone() for parameter in layer.parameters())
    x = torch.tensor([[1.3, -400.0]], dtype=torch.float16)[..., None, None]
    rounded = RoundedConvolution(copy.deepcopy(layer), plan)(x)
    levels = torch.tensor([3.0, -128.0])
    weights = (weight[..., 0, 0] / plan.weight_steps[:, None]).round()
    expected = (weights @ levels) * plan.weight_steps * 0.5 + (bias + plan.bias_shift).half().float()
    assert rounded.dtype == torch.float16
    torch.testing.assert_close(rounded[0, :, 0, 0], expected.half())


@pytest.mark.slow
def test_the_shipped_weights_keep_their_maps_in_the_graphs_arithmetic(example_photos: list[Photo]) -> None:
    """In groups of three: of one photo the network is so undecided at half the size that CPUs' roundings differ."""
    checkpoint = read_checkpoint(SHIPPED)
    info = dataclasses.replace(checkpoint.info, preprocessing=Preprocessing(112))  # a quarter of the time
    checkpoint = dataclasses.replace(checkpoint, info=info)
    network = graph_network(checkpoint, "int8", get_target("tensorrt-rtx"), None)
    assert network is not None
    for start in range(0, len(example_photos), 5):  # of each kind
        inputs = to_input(example_photos[start : start + 3], checkpoint.info.preprocessing)
        (row,) = measure_typed_parity(checkpoint.network(), network, "int8", inputs, [3])
        assert row.passed, row
        assert row.mean_abs > 1e-5


# Plans


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_plans_build_without_a_gpu(capability: str, graph: onnx.ModelProto, tmp_path: Path) -> None:
    require_tensorrt_rtx()
    spec = EngineSpec("int8", 4, (capability,), ONE_PROFILE)
    get_target("tensorrt-rtx").build(graph, spec, tmp_path)
    shares = plan_facts(tmp_path)["audit"]["shares"]
    assert shares["Int8"] > 0.9
    assert set(shares) == {"Int8", "Half", "Float"}
    assert shares["Float"] < 0.005  # at full width a ten-thousandth


@pytest.fixture
def build(tiny_checkpoint: Checkpoint, tmp_path: Path) -> Callable[..., int]:
    """Build INT8 for RTX from the tiny checkpoint, to `int8.gconet`."""
    require_tensorrt_rtx()
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.safetensors")
    arguments = ["--checkpoint", str(tmp_path / "tiny.safetensors"), "--target", "tensorrt-rtx", "--precision", "int8"]
    return lambda *more: run(build_engine.main, [*arguments, "--out", str(tmp_path / "int8.gconet"), *more])


def test_a_build_measures_the_graph_where_the_plan_does_not_run(
    build: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if get_target("tensorrt-rtx").runs_here() is None:
        pytest.skip("this machine runs plans")
    # Maps of random weights are undecided everywhere, so masks turn over more easily than those of a trained network.
    undecided = Tolerance(None, TOLERANCES["pytorch", "int8"].mean_abs, 0.9, "tests")
    monkeypatch.setitem(tolerances.TOLERANCES, ("pytorch", "int8"), undecided)  # type: ignore[misc]
    assert build() == 0
    printed = capsys.readouterr().out
    assert "ONNX opset 19" in printed
    assert "in Int8" in printed
    assert "in Half" in printed
    manifest = open_bundle(tmp_path / "int8.gconet").manifest
    assert manifest.opset == 19
    assert "not_measured" in manifest.parity
    assert [row["group"] for row in manifest.parity["graph"]["rows"]] == [1, 2, 5]
    assert manifest.parity["graph"]["rows"][0]["mean_abs"] > 1e-4

    impossible = Tolerance(0.0, 0.0, 1.0, "tests")
    monkeypatch.setitem(tolerances.TOLERANCES, ("pytorch", "int8"), impossible)  # type: ignore[misc]
    assert build("--out", str(tmp_path / "other.gconet")) == 1
    assert "in int8 the graph is outside the tolerance" in capsys.readouterr().err
    assert not (tmp_path / "other.gconet").exists()


def test_targets_get_their_own_form(tiny_checkpoint: Checkpoint) -> None:
    graph = make_graph(tiny_checkpoint, "int8", get_target("tensorrt"), None)
    assert audit_graph(graph).operations.keys() == {"int8", "fp16", "fp32"}
    plain = make_graph(tiny_checkpoint, "int8", get_target("onnxruntime"), None)
    assert audit_graph(plain).operations.keys() == {"int8", "fp32"}
    assert {layer_of(node) for node in graph.graph.node if node.op_type == "Conv"} >= {"gam.query"}


def test_the_graph_of_an_engine_that_lowers_it_is_not_emulated(tiny_checkpoint: Checkpoint) -> None:
    assert graph_network(tiny_checkpoint, "bf16", get_target("openvino"), None) is None
    assert graph_network(tiny_checkpoint, "fp32", get_target("tensorrt"), None) is None


def test_parity_of_the_unsigned_float32_form_is_emulated_too(
    tiny_checkpoint: Checkpoint, tiny_network: GCoNet, groups: list[FloatArray]
) -> None:
    network = graph_network(tiny_checkpoint, "int8", get_target("openvino"), None)
    assert network is not None
    with torch.inference_mode():
        maps = network(torch.from_numpy(groups[0])).numpy()
    row = compare(eager_maps(tiny_network, groups[0]), maps, TOLERANCES["openvino", "int8"])
    assert row.passed, row
