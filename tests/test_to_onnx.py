"""The exported graph: visible operators, functions any runtime can inline, a dynamic group axis, nothing left over."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnx.reference
import onnxruntime as ort
import pytest
import torch

from gconet.export.operators import DOMAIN, OPSET, depthwise_correlation, functions, group_affinity
from gconet.export.to_onnx import export_detect
from gconet.runtime.preprocess import FloatArray
from gconet.train.model import GCoNet


@pytest.fixture(scope="module")
def graph(tiny_network: GCoNet) -> onnx.ModelProto:
    """The tiny network, exported."""
    return export_detect(tiny_network, 64)


def run(model: onnx.ModelProto, inputs: dict[str, FloatArray]) -> FloatArray:
    """First output in ONNX Runtime."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: FloatArray = session.run(None, inputs)[0]
    return output


def test_both_operators_are_visible_nodes_with_a_function_each(graph: onnx.ModelProto) -> None:
    nodes = [node.op_type for node in graph.graph.node if node.domain == DOMAIN]
    assert sorted(nodes) == ["DepthwiseCorrelation", "GroupAffinity"]
    assert sorted((function.domain, function.name) for function in graph.functions) == [
        (DOMAIN, "DepthwiseCorrelation"),
        (DOMAIN, "GroupAffinity"),
    ]


def test_inputs_outputs_and_opset_are_what_the_runtime_expects(graph: onnx.ModelProto) -> None:
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert shapes == {"images": ["group", 3, 64, 64], "maps": ["group", 1, 64, 64]}
    assert {opset.domain: opset.version for opset in graph.opset_import} == {"": OPSET, DOMAIN: 1}


def test_only_the_convolutions_the_answer_needs_are_left(graph: onnx.ModelProto) -> None:
    """13 encoder, 2 affinity, 2 top, 4 levels of 4, 3 of the one side head; no resize but the 4 that enlarge."""
    operators = [node.op_type for node in graph.graph.node]
    assert operators.count("Conv") == 13 + 2 + 2 + 4 * 4 + 3
    assert operators.count("Resize") == 4
    assert operators.count("MaxPool") == 4


def test_nothing_of_the_tracing_machine_is_left(graph: onnx.ModelProto) -> None:
    assert b"/site-packages/" not in graph.SerializeToString()
    assert b".py" not in graph.SerializeToString()


def test_no_matrix_product_broadcasts_both_its_stacks(graph: onnx.ModelProto) -> None:
    """ONNX Runtime's CUDA provider gives garbage for those."""
    inlined = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(graph))
    shapes = {value.name: value.type.tensor_type.shape.dim for value in inlined.graph.value_info}
    products = [node for node in inlined.graph.node if node.op_type == "MatMul"]
    assert products
    for node in products:
        assert any(all(axis.dim_value == 1 for axis in shapes[name][:-2]) for name in node.input), node


@pytest.mark.parametrize("photos", [1, 2, 5, 7])
def test_graph_equals_the_eager_network_inlined_or_not(
    graph: onnx.ModelProto, tiny_network: GCoNet, photos: int, rng: np.random.Generator
) -> None:
    images = rng.standard_normal((photos, 3, 64, 64), np.float32)
    with torch.inference_mode():
        expected = tiny_network(torch.from_numpy(images)).numpy()
    inlined = onnx.inliner.inline_local_functions(graph)
    assert not [node for node in inlined.graph.node if node.domain == DOMAIN]
    for model in (graph, inlined):
        np.testing.assert_allclose(run(model, {"images": images}), expected, rtol=0, atol=1e-5)


def test_half_graph_is_half_throughout_but_for_its_islands(tiny_network: GCoNet, rng: np.random.Generator) -> None:
    graph = export_detect(tiny_network, 64, "fp16")
    floats = {tensor.name for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    layers = {name.rpartition(".")[0] for name in floats if name.endswith((".weight", ".bias"))}
    assert layers == {"gam.pixel_bias", "gam.output", "decoder.levels.1.side.4.layer"}
    casts = [node for node in graph.graph.node if node.op_type == "Cast"]
    assert len(casts) == 4  # into the network, into and out of the vector path, into the logits
    images = rng.standard_normal((2, 3, 64, 64), np.float32)
    with torch.inference_mode():
        expected = tiny_network(torch.from_numpy(images)).numpy()
    assert np.abs(run(graph, {"images": images}) - expected).mean() < 2e-3
    assert tiny_network.encoder.state_dict()["conv1.conv1_1.weight"].dtype == torch.float32


@pytest.mark.parametrize("name", ["GroupAffinity", "DepthwiseCorrelation"])
def test_function_bodies_equal_the_eager_operators(name: str, rng: np.random.Generator) -> None:
    function = next(function for function in functions() if function.name == name)
    shapes = {"query": (3, 8, 5, 4), "key": (3, 8, 5, 4), "pixel_bias": (3, 1, 5, 4)}
    shapes |= {"features": (3, 8, 5, 4), "consensus": (1, 8, 1, 1)}
    inputs = {key: rng.standard_normal(shapes[key], np.float32) for key in function.input}
    (actual,) = onnx.reference.ReferenceEvaluator(function).run(None, inputs, attributes={})
    operator = {"GroupAffinity": group_affinity, "DepthwiseCorrelation": depthwise_correlation}[name]
    expected = operator(*(torch.from_numpy(value) for value in inputs.values()))
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-5, atol=1e-6)
