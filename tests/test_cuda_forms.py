"""Forms for ONNX Runtime's CUDA provider: the answer of the plain graph, and none of what the provider is slow at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
import onnx.parser
import onnxruntime
import pytest
from conftest import TINY_SIZE

from gconet.engines.cuda_forms import suit_cuda
from gconet.engines.graph_parts import cut
from gconet.engines.registry import get_target
from gconet.engines.spelled_shapes import spell_shapes
from gconet.export.graphs import make_graph
from gconet.runtime.bundle import open_bundle
from gconet.runtime.preprocess import Photo, Preprocessing, to_input
from gconet.train.checkpoint import Checkpoint


@pytest.fixture
def plain(tiny_checkpoint: Checkpoint) -> onnx.ModelProto:
    """The graph `detect` of the tiny network in float32, without functions and computed shapes."""
    graph = make_graph(tiny_checkpoint, "fp32", get_target("onnxruntime"), None)
    return spell_shapes(onnx.inliner.inline_local_functions(cut(graph)["detect"]))


def nodes(model: onnx.ModelProto, operator: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == operator]


def answer(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (maps,) = session.run(None, {"images": images})
    return np.asarray(maps)


def test_maps_are_those_of_the_plain_graph(plain: onnx.ModelProto, example_photos: list[Photo]) -> None:
    suited = suit_cuda(plain)
    onnx.checker.check_model(suited, full_check=True)
    for count in (1, 2, 5):
        images = to_input(example_photos[:count], Preprocessing(TINY_SIZE))
        np.testing.assert_allclose(answer(suited, images), answer(plain, images), rtol=0, atol=1e-6)


def test_no_form_is_left_that_the_provider_is_slow_at(plain: onnx.ModelProto) -> None:
    suited = suit_cuda(plain)
    weights = {tensor.name: tensor.dims for tensor in plain.graph.initializer}
    convolutions = nodes(plain, "Conv")
    one_channel = [node for node in convolutions if weights[node.input[1]][0] == 1]
    biases = [node for node in convolutions if node not in one_channel and len(node.input) == 3]
    assert len(one_channel) == 2  # the pixel bias and the logits
    assert len(biases) > 30
    assert len(nodes(suited, "Conv")) == len(convolutions) - len(one_channel)
    assert all(len(node.input) == 2 for node in nodes(suited, "Conv"))
    products = {name: node for node in plain.graph.node for name in node.output if node.op_type == "Mul"}
    assert sum(node.input[0] in products for node in nodes(plain, "ReduceMean")) == 1  # the consensus
    axes = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in suited.graph.initializer}
    assert not any(axes.get(node.input[1]) == [0, 2, 3] for node in nodes(suited, "ReduceMean"))
    assert len(nodes(suited, "MatMul")) == len(nodes(plain, "MatMul")) + len(one_channel) + 1
    kernels = {tensor.name: tensor.dims for tensor in suited.graph.initializer}
    assert next(kernels[node.input[1]][1] for node in nodes(suited, "Conv")) == 4  # of three colours
    read = {name for node in suited.graph.node for name in node.input}
    assert kernels.keys() <= read


def test_the_optimiser_puts_biases_back_unless_it_is_told_not_to(plain: onnx.ModelProto, tmp_path: Path) -> None:
    def kept_apart(disabled: list[str]) -> bool:
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        settings.optimized_model_filepath = str(tmp_path / f"{len(disabled)}.onnx")
        onnxruntime.InferenceSession(
            suit_cuda(plain).SerializeToString(), settings, ["CPUExecutionProvider"], disabled_optimizers=disabled
        )
        return all(len(node.input) == 2 for node in nodes(onnx.load(settings.optimized_model_filepath), "Conv"))

    assert kept_apart(["ConvAddFusion"])
    assert not kept_apart([])


def test_a_bundle_for_gpus_has_these_forms(tiny_bundle: Callable[[str, str], Path]) -> None:
    model = onnx.load(open_bundle(tiny_bundle("onnxruntime", "fp16")).file("detect.onnx"))
    assert all(len(node.input) == 2 for node in nodes(model, "Conv"))


@pytest.mark.parametrize(
    "graph",
    [
        "(float[n, 3, 4, 4] x, float[2, 3, 1, 1] w, float[2] b) => (float[n, 2, 4, 4] z) { z = Conv(x, w, b) }",
        """(float[n, 3, 4, 4] x) => (float[n, 1, 2, 2] z) <float[1, 3, 1, 1] w = {1, 2, 3}> {
            z = Conv<strides = [2, 2]>(x, w) }""",
        """(float[n, 3, 4, 4] x) => (float[n, 1, 3, 3] z) <float[1, 3, 2, 2] w = {1,2,3,4,5,6,7,8,9,10,11,12}> {
            z = Conv(x, w) }""",
        """(float[n, 3, 4, 4] x) => (float[n, 1, 6, 6] z) <float[1, 3, 1, 1] w = {1, 2, 3}> {
            z = Conv<pads = [1, 1, 1, 1]>(x, w) }""",
        """(float16[n, 3, 4, 4] x) => (float16[n, 1, 4, 4] z) <float16[1, 3, 1, 1] w = {1, 2, 3}> { z = Conv(x, w) }""",
        """(float[n, 3, 4, 4] x, float[n, 1, 4, 4] y) => (float[3] z) <int64[3] axes = {0, 2, 3}> {
            p = Add(x, y)  z = ReduceMean<keepdims = 0>(p, axes) }""",
        """(float[n, 3, 4, 4] x, float[n, 1, 4, 4] y) => (float[1, 3, 1, 1] z) <int64[3] axes = {0, 2, 3}> {
            p = Mul(x, y)  z = ReduceMean(p, axes) }""",
        """(float[n, 3, 4, 4] x, float[n, 1, 4, 4] y) => (float[n, 3] z) <int64[2] axes = {2, 3}> {
            p = Mul(x, y)  z = ReduceMean<keepdims = 0>(p, axes) }""",
        """(float[n, 3, 4, 4] x, float[n, 3, 4, 4] y) => (float[3] z) <int64[3] axes = {0, 2, 3}> {
            p = Mul(x, y)  z = ReduceMean<keepdims = 0>(p, axes) }""",
    ],
    ids=["bias of a caller", "strides", "2×2", "padding", "half", "a sum", "axes kept", "by photo", "no map"],
)
def test_other_nodes_stay(graph: str) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> plain {graph}')
    assert [node.op_type for node in suit_cuda(model).graph.node] == [node.op_type for node in model.graph.node]
