"""Sessions on a real GPU: parity, graphs, errors. Run with `pytest -m gpu`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_MAX_GROUP, TINY_SIZE
from gpu_bundles import PLANS, images_of, infer

import gconet.runtime as gr
from gconet.bench import latency
from gconet.bench.parity import measure_parity
from gconet.bench.parity_statistics import compare
from gconet.bench.tolerances import tolerance
from gconet.engines.plan_options import PlanOptions
from gconet.engines.registry import get_target
from gconet.runtime.bundle import describe_file
from gconet.runtime.command_line import run
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.preprocess import Photo
from gconet.train.model import GCoNet

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("target", PLANS)
def test_maps_keep_parity_with_the_eager_network(
    target: str, precision: str, gpu_bundle: Callable[..., Path], tiny_network: GCoNet, example_photos: list[Photo]
) -> None:
    bundle = gr.open_bundle(gpu_bundle(target, precision))
    session = gr.load(bundle.folder, device="cuda").session
    rows = measure_parity(session, bundle.manifest, tiny_network, example_photos, lambda _: None)
    assert [row.group for row in rows] == [1, 2, TINY_MAX_GROUP]
    assert all(row.passed for row in rows), rows


def test_onnxruntime_on_the_gpu_keeps_parity(
    gpu_bundle: Callable[..., Path], tiny_network: GCoNet, example_photos: list[Photo]
) -> None:
    detector = gr.load(gpu_bundle("onnxruntime"), device="cuda")
    assert detector.session.providers[0] == "CUDAExecutionProvider"  # type: ignore[attr-defined]
    rows = measure_parity(detector.session, detector.bundle.manifest, tiny_network, example_photos, lambda _: None)
    assert all(row.passed for row in rows), rows


def test_onnxruntimes_graphs_answer_as_plain_runs_do(gpu_bundle: Callable[..., Path], rng: np.random.Generator) -> None:
    bundle = gpu_bundle("onnxruntime", "fp16")
    with_graphs, without = (gr.load(bundle, device="cuda", cuda_graphs=on) for on in (True, False))
    limits = tolerance("onnxruntime", "fp16")
    for count in (2, 2, 2, 1, 4, 2, 3, 5, 6, 2):
        images = images_of(count, rng)
        row = compare(infer(with_graphs, images), infer(without, images), limits)
        assert row.passed, row
    session: Any = with_graphs.session
    assert session._graphs is not None
    assert [count for count, group in session._graphs._groups.items() if group] == [2, 1, 4, 3]


def test_onnxruntimes_tensorrt_provider_keeps_parity(
    gpu_bundle: Callable[..., Path], tiny_network: GCoNet, example_photos: list[Photo]
) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "TensorrtExecutionProvider" not in ort.get_available_providers() or get_target("tensorrt").runs_here():
        pytest.skip("needs onnxruntime-gpu and TensorRT")
    detector = gr.load(gpu_bundle("onnxruntime"), device="cuda", provider="tensorrt")
    rows = measure_parity(detector.session, detector.bundle.manifest, tiny_network, example_photos, lambda _: None)
    assert all(row.passed for row in rows), rows


def test_graphs_change_no_bit(gpu_plan: Path, rng: np.random.Generator) -> None:
    with_graphs, without = (gr.load(gpu_plan, device="cuda", cuda_graphs=on) for on in (True, False))
    for count in (2, 2, 2, 1, 4, 2, 4, 4, 4, 1, 1):
        images = images_of(count, rng)
        np.testing.assert_array_equal(infer(with_graphs, images), infer(without, images))


def test_the_tiny_plan_is_captured(gpu_plan: Path, rng: np.random.Generator) -> None:
    """So that the test above compares something: a plan with loops would run without graphs."""
    session: Any = gr.load(gpu_plan, device="cuda").session
    for _ in range(3):
        session.infer({"images": images_of(2, rng)})
    assert session._runners[2].graph is not None


def test_photos_of_all_sizes_get_maps_of_their_own(gpu_detector: gr.Detector, example_photos: list[Photo]) -> None:
    photos = example_photos[:3]
    assert [saliency.shape for saliency in gpu_detector.detect(photos)] == [photo.shape[:2] for photo in photos]


def test_a_plan_without_weights_answers_as_one_with_them(
    gpu_plan: Path, gpu_bundle: Callable[..., Path], rng: np.random.Generator
) -> None:
    target = gr.open_bundle(gpu_plan).manifest.target
    stripped = gpu_bundle(target, "fp32", PlanOptions(strip_weights=True))
    assert (stripped / "detect.plan").stat().st_size < (gpu_plan / "detect.plan").stat().st_size
    images = images_of(3, rng)
    expected, answer = (infer(gr.load(path, device="cuda"), images) for path in (gpu_plan, stripped))
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4)  # kernels may differ, the weights must not


# Errors


def test_a_group_beyond_the_plans_largest_is_a_usage_error(gpu_plan: Path, rng: np.random.Generator) -> None:
    detector = gr.load(gpu_plan, device="cuda")
    images = images_of(TINY_MAX_GROUP + 1, rng)
    complaint = rf"{TINY_MAX_GROUP + 1} photos: .* takes up to {TINY_MAX_GROUP}; .*--max-group {TINY_MAX_GROUP + 1}"
    with pytest.raises(gr.UsageError, match=complaint):
        infer(detector, images)
    with pytest.raises(gr.UsageError, match=complaint):
        detector.detect([np.zeros((8, 8, 3), np.uint8)] * (TINY_MAX_GROUP + 1))
    assert infer(detector, images[:2]).shape == (2, 1, TINY_SIZE, TINY_SIZE)


def changed(bundle: Path, folder: Path, gpu_plan: bytes, **changes: Any) -> Path:
    """A copy of a bundle with another plan, which its manifest vouches for."""
    copy = folder / "copy.gconet"
    shutil.copytree(bundle, copy)
    (copy / "detect.plan").write_bytes(gpu_plan)
    document = json.loads((copy / MANIFEST_NAME).read_text("utf-8"))
    document["files"]["detect.plan"] = vars(describe_file(copy / "detect.plan"))
    (copy / MANIFEST_NAME).write_text(json.dumps(document | changes), "utf-8")
    return copy


def test_a_truncated_plan_is_one_line(gpu_plan: Path, tmp_path: Path) -> None:
    whole = (gpu_plan / "detect.plan").read_bytes()
    with pytest.raises(gr.BundleError, match=r"cannot load .*detect\.plan on GPU 0 .*: build it again with") as caught:
        gr.load(changed(gpu_plan, tmp_path, whole[: len(whole) // 2]), device="cuda")
    assert "\n" not in str(caught.value)


def test_a_plan_of_another_version_names_both(gpu_plan: Path, tmp_path: Path) -> None:
    bundle = changed(gpu_plan, tmp_path, b"a plan of the past" * 99, target_version="8.6.1")
    with pytest.raises(gr.TargetError, match=r"its plan is of TensorRT.* 8\.6\.1, this is .*: .*build it again with"):
        gr.load(bundle, device="cuda")


def test_a_gpu_that_is_not_there_is_told(gpu_plan: Path) -> None:
    with pytest.raises(gr.TargetError, match="no GPU 99 on this machine"):
        gr.load(gpu_plan, device="cuda:99")


def test_bench_times_copies_computation_and_launches_apart(gpu_plan: Path, tmp_path: Path) -> None:
    report = tmp_path / "latency.json"
    arguments = ["--bundle", str(gpu_plan), "--no-eager", "--no-parity", "--rounds", "5", "--json", str(report)]
    assert run(latency.main, arguments) == 0
    (row,) = json.loads(report.read_text("utf-8"))["rows"]
    assert all(value > 0 for value in row["gpu"].values())
    assert row["device_memory_mb"] > 0
    if torch.cuda.is_available():
        assert row["projection"]["ms"] > 0
        assert 0 < row["roofline"]["share_of_peak"] < 1
