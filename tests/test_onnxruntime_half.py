"""ONNX Runtime in half precision: a typed graph for GPUs, which a CPU computes in float32 between casts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import TINY_SIZE

from gconet.bench import latency
from gconet.bench.parity_statistics import compare
from gconet.bench.reference import eager_maps
from gconet.bench.tolerances import TOLERANCES
from gconet.engines import registry
from gconet.engines.registry import choose_target, get_target
from gconet.engines.target import EngineSpec
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import run
from gconet.runtime.errors import TargetError
from gconet.runtime.preprocess import Photo, Preprocessing, to_input
from gconet.runtime.session import open_session
from gconet.train.model import GCoNet

Bundles = Callable[[str, str], Path]
ISLANDS = 2  # the pixel bias and the logits: convolutions to one channel, as products


def test_convolutions_are_half_but_for_the_islands(tiny_bundle: Bundles) -> None:
    """As exported: ONNX Runtime's own optimiser would have put casts to float32 around each."""
    model = onnx.load(open_bundle(tiny_bundle("onnxruntime", "fp16")).file("detect.onnx"))
    types = {weights.name: weights.data_type for weights in model.graph.initializer}
    convolutions = [types[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    products = [types.get(node.input[1]) for node in model.graph.node if node.op_type == "MatMul"]
    assert set(convolutions) == {onnx.TensorProto.FLOAT16}
    assert products.count(onnx.TensorProto.FLOAT) == ISLANDS


@pytest.mark.parametrize("photos", [1, 2, 5])
def test_maps_keep_the_tolerance(
    tiny_bundle: Bundles, tiny_network: GCoNet, example_photos: list[Photo], photos: int
) -> None:
    images = to_input(example_photos[:photos], Preprocessing(TINY_SIZE))
    session = open_session(open_bundle(tiny_bundle("onnxruntime", "fp16")), "cpu", None)
    maps = np.asarray(session.infer({"images": images})["maps"])
    row = compare(maps, eager_maps(tiny_network, images), TOLERANCES["onnxruntime", "fp16"])
    assert row.passed, row


def test_auto_passes_it_over_as_it_would_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "AUTO_ORDER", ("onnxruntime",))
    target = get_target("onnxruntime")
    assert target.runs_here() is target.runs_here("int8") is None
    assert target.why_not_here(EngineSpec("fp16", 4)) is None  # it is measured, as a CPU rounds alike
    with pytest.raises(TargetError, match="onnxruntime not: half precision is for device cuda"):
        choose_target("fp16")


def test_bench_runs_it_where_it_is_told(tiny_bundle: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--bundle", str(tiny_bundle("onnxruntime", "fp16")), "--no-eager", "--no-parity", "--no-roofline"]
    arguments += ["--rounds", "1", "--warm-up", "1", "--group", "1"]
    assert run(latency.main, [*arguments, "--device", "cpu"]) == 0
    assert "onnxruntime  fp16      1" in capsys.readouterr().out
    assert run(latency.main, [*arguments, "--device", "cuda"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
