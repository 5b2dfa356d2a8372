"""A bundle's graphs are cut from one, and store its weights once."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import TINY, TINY_SIZE
from onnx.reference import ReferenceEvaluator

from gconet.engines.graph_parts import PARTS, cut
from gconet.engines.shared_weights import ALIGNMENT, WeightStore
from gconet.export.to_onnx import export_detect
from gconet.runtime import open_bundle
from gconet.train.model import GCoNet

FLOAT = np.dtype(np.float32).itemsize


@pytest.fixture(scope="module")
def graphs(tiny_network: GCoNet) -> dict[str, onnx.ModelProto]:
    return cut(export_detect(tiny_network, TINY_SIZE))


def test_every_graph_has_the_tensors_of_the_table(graphs: dict[str, onnx.ModelProto]) -> None:
    assert sorted(graphs) == sorted([*(part.name for part in PARTS), "agree"])
    for part in PARTS:
        graph = graphs[part.name].graph
        assert tuple(value.name for value in graph.input) == part.inputs
        assert tuple(value.name for value in graph.output) == part.outputs
    names = {node.op_type for node in graphs["detect"].graph.node}
    assert {"GroupAffinity", "DepthwiseCorrelation"} <= names  # still visible


def test_only_detect_is_cut_from_a_graph_of_strangers(tiny_network: GCoNet) -> None:
    graph = export_detect(tiny_network, TINY_SIZE)
    for value in graph.graph.value_info:
        value.name = f"x_{value.name}"
    assert list(cut(graph)) == ["detect"]


def test_agree_is_the_best_match_in_each_photo(graphs: dict[str, onnx.ModelProto], rng: np.random.Generator) -> None:
    shape = (TINY.encoder_channels[-1], TINY_SIZE // 16, TINY_SIZE // 16)
    query, features = (rng.standard_normal((count, *shape)).astype(np.float32) for count in (2, 3))
    best = ReferenceEvaluator(graphs["agree"]).run(None, {"query": query, "features": features})[0]
    plain = np.einsum("qcij,kcmn->qkijmn", query, features).max(axis=(4, 5)).reshape(2, 3, -1)
    np.testing.assert_allclose(best, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("target", "precision"), [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "int8")])
def test_weights_are_stored_once(
    target: str, precision: str, tiny_bundle: Callable[[str, str], Path], tiny_network: GCoNet
) -> None:
    files = open_bundle(tiny_bundle(target, precision)).manifest.files
    needed = {"encoder", "decoder", "gam"}
    weights = sum(
        parameter.numel() for name, parameter in tiny_network.named_parameters() if name.split(".")[0] in needed
    )
    assert files["weights.bin"].bytes <= weights * FLOAT + ALIGNMENT * 400
    assert len([name for name in files if name.endswith((".xml", ".onnx"))]) == len(PARTS) + 1


def test_a_store_writes_each_tensor_once_on_a_boundary() -> None:
    file = io.BytesIO()
    store = WeightStore(file)
    first, second = store.place(b"abc"), store.place(b"defg")
    assert (store.place(b"abc"), first % ALIGNMENT, second % ALIGNMENT) == (first, 0, 0)
    content = file.getvalue()
    assert (content[first : first + 3], content[second : second + 4]) == (b"abc", b"defg")
