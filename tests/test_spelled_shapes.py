"""Shapes as constants in graphs for GPUs: the answer is the same to the bit, and nothing computes a shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.parser
import onnxruntime
import pytest
from conftest import TINY_SIZE

from gconet.engines.graph_parts import cut
from gconet.engines.registry import get_target
from gconet.engines.spelled_shapes import spell_shapes
from gconet.export.graphs import make_graph
from gconet.runtime.bundle import open_bundle
from gconet.train.checkpoint import Checkpoint

SIZES = {"photos": 3, "queries": 2, "group": 3}  # of free axes


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def answer(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:  # type: ignore[type-arg]
    """Of the graph as it is written: optimised, a CPU may use other layouts where it knows all sizes."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answers: list[np.ndarray] = session.run(None, inputs)  # type: ignore[type-arg]
    return answers


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_no_bit_changes_and_no_shape_is_computed(
    precision: str, tiny_checkpoint: Checkpoint, rng: np.random.Generator
) -> None:
    graph = make_graph(tiny_checkpoint, precision, get_target("onnxruntime"), None)
    plain = onnx.inliner.inline_local_functions(cut(graph)["detect"])
    spelled = spell_shapes(plain)
    onnx.checker.check_model(spelled, full_check=True)
    assert operators(plain)["Shape"] == 6
    assert operators(plain) - operators(spelled) == Counter(Shape=6, Concat=4)
    assert not operators(spelled) - operators(plain)
    for count in (1, 2, 3, 5):
        images = {"images": rng.standard_normal((count, 3, TINY_SIZE, TINY_SIZE), np.float32)}
        np.testing.assert_array_equal(answer(spelled, images), answer(plain, images))


def test_parts_answer_the_same_too(tiny_checkpoint: Checkpoint, rng: np.random.Generator) -> None:
    for name, part in cut(make_graph(tiny_checkpoint, "fp32", get_target("onnxruntime"), None)).items():
        plain = onnx.inliner.inline_local_functions(part)
        spelled = spell_shapes(plain)
        assert not operators(spelled)["Shape"], name
        inputs = {
            value.name: rng.standard_normal(
                [SIZES.get(axis.dim_param, axis.dim_value) for axis in value.type.tensor_type.shape.dim], np.float32
            )
            for value in plain.graph.input
        }
        for found, expected in zip(answer(spelled, inputs), answer(plain, inputs), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_bundle_for_gpus_computes_no_shape(tiny_bundle: Callable[[str, str], Path]) -> None:
    model = onnx.load(open_bundle(tiny_bundle("onnxruntime", "fp16")).file("detect.onnx"))
    assert not operators(model)["Shape"]


@pytest.mark.parametrize(
    "graph",
    [
        "(float[n, m] x, float[k] y) => (float[a, b] z) { s = Shape(x)  z = Reshape(y, s) }",
        "(float[n, 3] x, float[k] y) => (float[a] z) { s = Shape<start = 0, end = 1>(x)  z = Reshape(y, s) }",
        "(float[n, 3] x, int64[2] s) => (float[a, b] z) { z = Reshape(x, s) }",
        """(float[n, 3, 4, 4] x) => (float[n, 3, 6, 6] z) <int64[2] c = {6, 6}> {
            s = Shape<start = 0, end = 2>(x)  t = Concat<axis = 0>(s, c)
            z = Resize<mode = "linear">(x, , , t) }""",
        """(float[n, 3, h, 4] x) => (float[n, 3, 8, 8] z) <int64[2] c = {8, 8}> {
            s = Shape<start = 0, end = 2>(x)  t = Concat<axis = 0>(s, c)
            z = Resize<mode = "linear">(x, , , t) }""",
    ],
    ids=["two free axes", "part of a shape", "a shape that is given", "no whole multiple", "a free height"],
)
def test_what_inference_cannot_tell_stays_as_it_is(graph: str) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> g {graph}')
    assert spell_shapes(model) == model
