"""The layers of a graph keep their names in all its forms, and a planted fault is found at the layer it was planted."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import pytest
from conftest import TINY_SIZE
from parity_bundles import BundleWithFault, Fault, change_weight, random_images, round_output, scale_weights

from gconet.bench.bisect_graph import Graph, Node, layer_inputs, name_layers, onnx_graph, openvino_graph
from gconet.bench.bisect_layers import ROUNDING, Bisection, bisect_bundle, compare_layers
from gconet.bench.bisect_report import LARGEST_HALF, jump_verdict, scan_verdict
from gconet.bench.bisect_runners import LayerRunner, _onnx_runner, bundle_runner, graph_runner
from gconet.bench.reference import eager_maps
from gconet.engines.registry import get_target
from gconet.export.to_onnx import export_detect
from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.errors import TargetError
from gconet.train.checkpoint import Checkpoint
from gconet.train.model import GCoNet

Bisect = Callable[[Path], Bisection]
DEEP, LATERAL, LINEAR = "encoder.conv4.conv4_2", "decoder.levels.3.lateral.0", "decoder.levels.3.lateral.2"


@pytest.fixture(scope="module")
def make_bundle(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> BundleWithFault:
    return BundleWithFault(tiny_checkpoint, tmp_path_factory.mktemp("faulty"))


@pytest.fixture(scope="module")
def exported(make_bundle: BundleWithFault) -> LayerRunner:
    return graph_runner(make_bundle.graph)


@pytest.fixture(scope="module")
def half_graph(tiny_network: GCoNet) -> onnx.ModelProto:
    return export_detect(tiny_network, TINY_SIZE, "fp16")


@pytest.fixture
def bisect(tiny_network: GCoNet, exported: LayerRunner) -> Bisect:
    images = random_images(2)
    eager = eager_maps(tiny_network, images)
    return lambda path: bisect_bundle(open_bundle(path), exported, images, eager)


def test_layers_have_the_same_names_in_every_form_of_the_graph(
    make_bundle: BundleWithFault, half_graph: onnx.ModelProto
) -> None:
    exported = onnx_graph(onnx.inliner.inline_local_functions(make_bundle.graph))
    wanted = name_layers(exported)
    assert {DEEP, LATERAL, "gam.query", "gam.output", "decoder.levels.1.side.4"} < wanted.keys()
    assert {"MaxPool(encoder.conv1.conv1_2)", "Resize(decoder.top.2)"} < wanted.keys()
    assert wanted["decoder.levels.1.side.4"] == "maps"
    assert len(set(wanted.values())) == len(wanted)

    optimised = bundle_runner(open_bundle(make_bundle("optimised", "onnxruntime", "fp32"))).layers
    assert len(wanted.keys() - optimised.keys()) <= 1  # ONNX Runtime fuses the consensus' product and its bias
    assert optimised.keys() <= wanted.keys()
    assert bundle_runner(open_bundle(make_bundle("converted", "openvino", "fp32"))).layers.keys() == wanted.keys()
    assert name_layers(onnx_graph(onnx.inliner.inline_local_functions(half_graph))).keys() == wanted.keys()


def test_a_layer_reaches_to_its_activation_and_inputs_skip_what_is_no_layer() -> None:
    graph = Graph(
        [
            Node("Conv", ("images", "first.weight"), "a"),
            Node("Shape", ("a",), "size"),
            Node("Add", ("a", "first.bias"), "b"),
            Node("Cast", ("b",), "c"),
            Node("Relu", ("c",), "d"),
            Node("Conv", ("d", "second.layer.weight"), "e"),
            Node("Mul", ("e", "two"), "f"),
            Node("Add", ("d", "f"), "g"),
            Node("Resize", ("g", "size"), "h"),
            Node("Add", ("g", "h"), "i"),
            Node("Add", ("h", "i"), "j"),
        ],
        {"first.weight", "first.bias", "second.layer.weight", "two"},
    )
    layers = name_layers(graph)
    assert layers == {
        "first": "d", "second": "e", "Add(first, second)": "g", "Resize(first, second)": "h",
        "Add(first, second)#2": "i", "Add(first, second)#3": "j",
    }  # fmt: skip
    inputs = layer_inputs(graph, layers)
    assert inputs["first"] == frozenset()
    assert inputs["second"] == {"first"}
    assert inputs["Add(first, second)"] == {"first", "second"}
    del layers["Resize(first, second)"]
    assert layer_inputs(graph, layers)["Add(first, second)#2"] == {"Add(first, second)"}


def test_openvino_models_are_read_as_onnx_ones_are(make_bundle: BundleWithFault) -> None:
    ov = pytest.importorskip("openvino")
    folder = make_bundle("read", "openvino", "fp32")
    graph = openvino_graph(ov.Core().read_model(folder / "detect.xml", folder / "weights.bin"))
    exported = onnx_graph(onnx.inliner.inline_local_functions(make_bundle.graph))
    assert layer_inputs(graph, name_layers(graph)) == layer_inputs(exported, name_layers(exported))


def test_integer_layers_are_read_as_floats() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 18]>
        quantised (float[1, 1, 2, 2] images) => (float[1, 1, 2, 2] maps)
        <float scale = {0.5}, uint8 zero = {0}, int8[1, 1, 1, 1] kernel = {3}, int8 none = {0},
         float out_scale = {0.25}>
        {
            q = QuantizeLinear (images, scale, zero)
            conv = QLinearConv (q, scale, zero, kernel, scale, none, out_scale, zero)
            pool = MaxPool <kernel_shape = [1, 1]> (conv)
            maps = DequantizeLinear (pool, out_scale, zero)
        }
    """)
    model.graph.initializer[2].name = model.graph.node[1].input[3] = "first.weight_quantized"  # no name to be parsed
    images = np.array([[[[1, 2], [3, 100]]]], np.float32)
    values = _onnx_runner(model, "quantised", optimise=False).run(images)
    assert list(values) == ["first", "MaxPool(first)"]
    wanted = np.array([1.5, 3, 4.5, 255 * 0.25], np.float32)  # 100 leaves the range
    np.testing.assert_array_equal(values["first"].ravel(), wanted)
    np.testing.assert_array_equal(values["MaxPool(first)"].ravel(), wanted)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("layer", [DEEP, LATERAL])
def test_one_changed_weight_is_found_at_its_layer(
    make_bundle: BundleWithFault, bisect: Bisect, target: str, layer: str
) -> None:
    found = bisect(make_bundle(f"weight-{layer}-{target}", target, "fp32", change_weight(layer, 3.0)))
    row = found.first_jump
    assert row is not None
    assert row.layer == layer
    assert row.inherited < 1e-5 < 0.01 < row.relative_error
    assert row.worst_reference != pytest.approx(row.worst_engine)
    assert found.graph_max_abs < 1e-5
    assert f"first jump: {layer}, from {row.inherited:.1e} to {row.relative_error:.1e}" in jump_verdict(found)


def test_a_layer_in_less_precision_is_found(make_bundle: BundleWithFault, bisect: Bisect) -> None:
    fault = round_output(DEEP, onnx.TensorProto.BFLOAT16)
    row = bisect(make_bundle("rounded", "onnxruntime", "fp32", fault)).first_jump
    assert row is not None
    assert row.layer == DEEP
    assert 2**-11 < row.relative_error < 2**-8  # what 8 bits of mantissa give


@pytest.mark.parametrize(("target", "precision"), [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")])
def test_a_sound_engine_does_not_jump(
    make_bundle: BundleWithFault, bisect: Bisect, target: str, precision: str
) -> None:
    if precision not in ("fp32", get_target(target).preferred_precision()):
        pytest.skip(f"this CPU has no {precision} instructions")
    found = bisect(make_bundle(f"sound-{target}-{precision}", target, precision))
    assert found.first_jump is None
    assert found.first_not_finite is None
    assert len(found.rows) > 50
    assert "no layer's error jumps" in jump_verdict(found)
    assert f"no NaN, no infinity in {len(found.rows)} layers" in scan_verdict(found)


@pytest.mark.parametrize(
    ("target", "layer", "fault"),
    [
        ("onnxruntime", DEEP, change_weight(DEEP, math.nan)),
        ("openvino", LINEAR, change_weight(LINEAR, math.nan)),  # where a ReLU follows, OpenVINO makes 0 of a NaN
        *((target, DEEP, change_weight(DEEP, math.inf)) for target in ("onnxruntime", "openvino")),
        *((target, DEEP, scale_weights(DEEP, 3e38)) for target in ("onnxruntime", "openvino")),
    ],
)
def test_the_scan_names_the_first_layer_that_is_not_finite(
    make_bundle: BundleWithFault, bisect: Bisect, target: str, layer: str, fault: Fault
) -> None:
    found = bisect(make_bundle("not-finite", target, "fp32", fault))
    row = found.first_not_finite
    assert row is not None
    assert row.layer == layer
    assert row.not_finite > 0
    assert math.isfinite(row.largest_engine)
    assert f"first NaN or infinity: {layer}, {row.not_finite} values" in scan_verdict(found)
    assert [other.layer for other in found.rows if other.jumps][:1] == [layer]


def test_an_overflow_of_half_precision_is_found(half_graph: onnx.ModelProto, exported: LayerRunner) -> None:
    images = random_images(2)
    half = onnx.ModelProto()
    half.CopyFrom(half_graph)
    scale_weights(DEEP, 1e4)(half)
    rows, _ = compare_layers(exported, exported.run(images), graph_runner(half).run(images), "fp16")
    first = next(row for row in rows if row.not_finite)
    assert first.layer == DEEP
    assert first.largest_engine <= LARGEST_HALF
    assert all(not row.jumps for row in rows[: rows.index(first)])
    assert {row.scale for row in rows[: rows.index(first)]} != {1.0}  # equalised, and seen through


def test_statistics_of_a_layer_by_hand() -> None:
    nodes = [
        Node("Conv", ("images", "a.weight"), "x"),
        Node("Conv", ("x", "b.weight"), "y"),
        Node("Conv", ("y", "c.weight"), "maps"),
    ]
    graph = Graph(nodes, {"a.weight", "b.weight", "c.weight"})
    runner = LayerRunner(graph, name_layers(graph), None)
    shape = (1, 1, 2, 2)
    reference = {name: np.array([3, 0, 0, 4], np.float32).reshape(shape) for name in "abc"}  # ‖·‖ = 5
    engine = {
        "a": reference["a"],
        "b": np.array([3, 0, 0.5, 4], np.float32).reshape(shape),
        "c": np.array([3, 0.4, 0, 4.3], np.float32).reshape(shape),
        "only here": reference["a"],
    }
    rows, not_compared = compare_layers(runner, reference, engine, "fp32")
    assert not_compared == ["only here"]
    a, b, c = rows
    assert (a.relative_error, a.sqnr_db, a.jumps, a.inherited) == (0, None, False, 0)
    assert b.relative_error == pytest.approx(0.1)
    assert b.sqnr_db == pytest.approx(20)
    assert (b.worst_reference, b.worst_engine, b.largest_reference, b.largest_engine) == (0, 0.5, 4, 4)
    assert b.jumps
    assert c.relative_error == pytest.approx(0.1)
    assert c.inherited == pytest.approx(0.1)
    assert not c.jumps  # it only passes on what it got

    scaled = {name: values * 8 for name, values in reference.items()}
    assert [row.scale for row in compare_layers(runner, reference, scaled, "fp16")[0]] == [8, 8, 8]
    assert [row.relative_error for row in compare_layers(runner, reference, scaled, "fp32")[0]] == [7, 7, 7]

    channels = {name: np.arange(1, 9, dtype=np.float32).reshape(1, 2, 2, 2) for name in "abc"}
    factors = np.array([0.3, 5], np.float32).reshape(2, 1, 1)
    wrong = {**channels, "b": channels["b"] * factors}  # as with the steps of another channel
    assert [row.jumps for row in compare_layers(runner, channels, wrong, "int8")[0]] == [False, True, False]


def test_every_precision_has_a_rounding_with_a_reason() -> None:
    assert ROUNDING.keys() == {"fp32", "fp16", "bf16", "int8"}
    assert all(rounding.reason and 0 < rounding.relative_error < 0.1 for rounding in ROUNDING.values())


def test_a_plan_cannot_be_looked_into(make_bundle: BundleWithFault) -> None:
    bundle = open_bundle(make_bundle("plan", "onnxruntime", "fp32"))
    manifest = bundle.manifest
    plan = Bundle(bundle.folder, type(manifest)(**{**vars(manifest), "target": "tensorrt"}))
    with pytest.raises(TargetError, match="onnxruntime or openvino in the same precision"):
        bundle_runner(plan)
