"""Sessions on a real GPU: parity, graphs, other libraries' arrays without a copy, threads. Run with `pytest -m gpu`."""

from __future__ import annotations

import dataclasses
import gc
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_MAX_GROUP, TINY_SIZE

import gconet.runtime as gr
from gconet.bench import latency
from gconet.bench.parity import measure_parity
from gconet.engines.bundle_writer import describe_files, staged_bundle, write_manifest
from gconet.engines.plan_options import PlanOptions
from gconet.engines.registry import get_target
from gconet.engines.target import EngineSpec
from gconet.engines.tensorrt_builder import plan_facts
from gconet.export.operators import OPSET
from gconet.export.to_onnx import export_detect
from gconet.runtime.bundle import describe_file
from gconet.runtime.command_line import run
from gconet.runtime.cuda import Device
from gconet.runtime.device_arrays import DeviceArray
from gconet.runtime.manifest import MANIFEST_NAME, Manifest
from gconet.runtime.preprocess import FloatArray, Photo, Preprocessing
from gconet.train.model import GCoNet

pytestmark = pytest.mark.gpu

PLANS = ("tensorrt", "tensorrt-rtx")
Loader = Callable[..., gr.Detector]


@pytest.fixture(scope="module")
def build(tiny_network: GCoNet, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Bundles of the tiny network by (target, precision, options); skips where the target cannot run."""
    built: dict[tuple[str, str, PlanOptions], Path] = {}

    def make(target_name: str, precision: str = "fp32", options: PlanOptions | None = None) -> Path:
        _require(target_name)
        key = target_name, precision, options or PlanOptions()
        if key not in built:
            target = get_target(target_name)
            spec = EngineSpec(precision, TINY_MAX_GROUP, plan=key[2])
            graph = export_detect(tiny_network, TINY_SIZE, precision)
            out = tmp_path_factory.mktemp("gpu") / f"{target_name}-{precision}.gconet"
            with staged_bundle(out) as folder:
                files = describe_files(target.build(graph, spec, folder))
                facts = {"target": target_name, "precision": precision, "target_version": target.version()}
                manifest = Manifest(
                    **facts,
                    preprocessing=Preprocessing(TINY_SIZE),
                    max_group=TINY_MAX_GROUP,
                    files=files,
                    architecture=dataclasses.asdict(TINY),
                    checkpoint={"provenance": "tests"},
                    opset=OPSET,
                    created="2026-01-01T00:00:00+00:00",
                )
                write_manifest(folder, dataclasses.replace(manifest, **plan_facts(folder)))
            built[key] = out
        return built[key]

    return make


def _require(target: str) -> None:
    if target == "onnxruntime":
        ort = pytest.importorskip("onnxruntime")
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            pytest.skip("needs onnxruntime-gpu: pip install 'gconet-deploy[onnxruntime-gpu]'")
        try:
            Device(0)
        except gr.TargetError as error:
            pytest.skip(f"needs an NVIDIA GPU: {error}")
    elif problem := get_target(target).runs_here():
        pytest.skip(problem)


@pytest.fixture(params=[*PLANS, "onnxruntime"])
def detector(request: pytest.FixtureRequest, build: Callable[..., Path]) -> gr.Detector:
    """The tiny network in fp32 on the first GPU, once per engine."""
    return gr.load(build(request.param), device="cuda")


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest, build: Callable[..., Path]) -> Path:
    """A bundle of the tiny network in fp32, once per TensorRT."""
    return build(request.param)


def images_of(count: int, rng: np.random.Generator) -> FloatArray:
    return rng.standard_normal((count, 3, TINY_SIZE, TINY_SIZE), np.float32)


def infer(detector: gr.Detector, images: FloatArray) -> FloatArray:
    return np.asarray(detector.session.infer({"images": images})["maps"])


def need_torch_cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs PyTorch with CUDA: the installed one is for the CPU")
    return torch.device("cuda:0")


# Answers


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("target", PLANS)
def test_maps_keep_parity_with_the_eager_network(
    target: str, precision: str, build: Callable[..., Path], tiny_network: GCoNet, example_photos: list[Photo]
) -> None:
    bundle = gr.open_bundle(build(target, precision))
    session = gr.load(bundle.folder, device="cuda").session
    rows = measure_parity(session, bundle.manifest, tiny_network, example_photos, lambda _: None)
    assert [row.group for row in rows] == [1, 2, TINY_MAX_GROUP]
    assert all(row.passed for row in rows), rows


def test_onnxruntime_on_the_gpu_keeps_parity(
    build: Callable[..., Path], tiny_network: GCoNet, example_photos: list[Photo]
) -> None:
    detector = gr.load(build("onnxruntime"), device="cuda")
    assert detector.session.providers[0] == "CUDAExecutionProvider"  # type: ignore[attr-defined]
    rows = measure_parity(detector.session, detector.bundle.manifest, tiny_network, example_photos, lambda _: None)
    assert all(row.passed for row in rows), rows


def test_onnxruntimes_tensorrt_provider_keeps_parity(
    build: Callable[..., Path], tiny_network: GCoNet, example_photos: list[Photo]
) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "TensorrtExecutionProvider" not in ort.get_available_providers() or get_target("tensorrt").runs_here():
        pytest.skip("needs onnxruntime-gpu and TensorRT")
    detector = gr.load(build("onnxruntime"), device="cuda", provider="tensorrt")
    rows = measure_parity(detector.session, detector.bundle.manifest, tiny_network, example_photos, lambda _: None)
    assert all(row.passed for row in rows), rows


def test_graphs_change_no_bit(plan: Path, rng: np.random.Generator) -> None:
    with_graphs, without = (gr.load(plan, device="cuda", cuda_graphs=on) for on in (True, False))
    for count in (2, 2, 2, 1, 4, 2, 4, 4, 4, 1, 1):
        images = images_of(count, rng)
        np.testing.assert_array_equal(infer(with_graphs, images), infer(without, images))


def test_the_tiny_plan_is_captured(plan: Path, rng: np.random.Generator) -> None:
    """So that the test above compares something: a plan with loops would run without graphs."""
    session: Any = gr.load(plan, device="cuda").session
    for _ in range(3):
        session.infer({"images": images_of(2, rng)})
    assert session._runners[2].graph is not None


def test_photos_of_all_sizes_get_maps_of_their_own(detector: gr.Detector, example_photos: list[Photo]) -> None:
    photos = example_photos[:3]
    assert [saliency.shape for saliency in detector.detect(photos)] == [photo.shape[:2] for photo in photos]


def test_a_plan_without_weights_answers_as_one_with_them(
    plan: Path, build: Callable[..., Path], rng: np.random.Generator
) -> None:
    target = gr.open_bundle(plan).manifest.target
    stripped = build(target, "fp32", PlanOptions(strip_weights=True))
    assert (stripped / "detect.plan").stat().st_size < (plan / "detect.plan").stat().st_size
    images = images_of(3, rng)
    expected, answer = (infer(gr.load(path, device="cuda"), images) for path in (plan, stripped))
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4)  # kernels may differ, the weights must not


# Arrays of other libraries


def test_torch_tensors_go_in_and_out_without_a_copy(detector: gr.Detector, rng: np.random.Generator) -> None:
    device = need_torch_cuda()
    values = images_of(3, rng)
    expected = infer(detector, values)
    images = torch.from_numpy(values).to(device)
    maps = torch.empty(3, 1, TINY_SIZE, TINY_SIZE, device=device)
    for _ in range(3):  # plain, captured, launched
        maps.zero_()
        computed = detector.detect_on_device(images, maps)
        taken = torch.from_dlpack(computed)
        assert computed.pointer == maps.data_ptr() == taken.data_ptr()
        np.testing.assert_allclose(taken.cpu().numpy(), expected, rtol=0, atol=1e-6)
    new = detector.detect_on_device(images)
    by_dlpack, by_interface = torch.from_dlpack(new), torch.as_tensor(new, device=device)
    assert new.pointer == by_dlpack.data_ptr() == by_interface.data_ptr() != maps.data_ptr()
    np.testing.assert_allclose(by_dlpack.cpu().numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(new.numpy(), expected, rtol=0, atol=1e-6)


def test_maps_outlive_what_they_were_made_from(plan: Path, rng: np.random.Generator) -> None:
    device = need_torch_cuda()
    detector = gr.load(plan, device="cuda")
    values = images_of(2, rng)
    expected = infer(detector, values)
    maps = torch.from_dlpack(detector.detect_on_device(torch.from_numpy(values).to(device)))
    del detector
    gc.collect()
    torch.empty(10**6, device=device).fill_(9)
    np.testing.assert_allclose(maps.cpu().numpy(), expected, rtol=0, atol=1e-6)


def test_streams_wait_for_each_other_without_the_host(detector: gr.Detector, rng: np.random.Generator) -> None:
    """Input computed late on a stream of torch's, then freed at once; output used on that stream at once."""
    device = need_torch_cuda()
    values = [images_of(2, rng) for _ in range(20)]
    expected = [infer(detector, value) for value in values]
    uploaded = [torch.from_numpy(value).to(device) for value in values]
    busy = torch.randn(2048, 2048, device=device)
    answers = []
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        for value in uploaded:
            for _ in range(4):
                busy = torch.tanh(busy @ busy)
            images = value + 0 * busy[0, 0]
            maps = detector.detect_on_device(images)
            del images
            torch.full_like(value, torch.nan)  # might get the memory of the input
            answers.append(torch.from_dlpack(maps) * 2)
    torch.cuda.synchronize()
    for answer, maps_expected in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer.cpu().numpy(), 2 * maps_expected, rtol=0, atol=1e-5)


def test_torch_tensors_that_do_not_fit_are_one_line(detector: gr.Detector) -> None:
    device = need_torch_cuda()
    images = torch.zeros(2, 3, TINY_SIZE, TINY_SIZE, device=device)
    wrong = {
        "float32": images.half(),
        "C-contiguous": images.transpose(2, 3),
        "requires grad|require gradient": images.clone().requires_grad_(),
        "not on a GPU": images.cpu(),
    }
    for complaint, tensor in wrong.items():
        with pytest.raises(gr.UsageError, match=complaint) as caught:
            detector.detect_on_device(tensor)
        assert "\n" not in str(caught.value)


def test_pycuda_arrays_go_in_and_out_without_a_copy(detector: gr.Detector, rng: np.random.Generator) -> None:
    pytest.importorskip("pycuda.autoprimaryctx", reason="needs PyCUDA: pip install 'gconet-deploy[pycuda]'")
    from pycuda import gpuarray

    values = images_of(3, rng)
    expected = infer(detector, values)
    images, maps = gpuarray.to_gpu(values), gpuarray.zeros((3, 1, TINY_SIZE, TINY_SIZE), np.float32)
    computed = detector.detect_on_device(images, maps)
    assert computed.pointer == int(maps.gpudata)
    computed.synchronize()
    np.testing.assert_allclose(maps.get(), expected, rtol=0, atol=1e-6)

    new = detector.detect_on_device(images)
    new.synchronize()
    wrapped = gpuarray.GPUArray(new.shape, new.dtype, base=new, gpudata=new.pointer)
    np.testing.assert_allclose(wrapped.get(), expected, rtol=0, atol=1e-6)


def test_cupy_arrays_go_in_and_out_without_a_copy(detector: gr.Detector, rng: np.random.Generator) -> None:
    cupy = pytest.importorskip("cupy", reason="needs CuPy")
    values = images_of(3, rng)
    expected = infer(detector, values)
    maps = cupy.zeros((3, 1, TINY_SIZE, TINY_SIZE), np.float32)
    computed = detector.detect_on_device(cupy.asarray(values), maps)
    for taken in (cupy.from_dlpack(computed), cupy.asarray(computed)):
        assert computed.pointer == maps.data.ptr == taken.data.ptr
        np.testing.assert_allclose(cupy.asnumpy(taken), expected, rtol=0, atol=1e-6)


# Threads


def test_eight_threads_with_groups_of_different_sizes_get_their_own_maps(
    detector: gr.Detector, rng: np.random.Generator
) -> None:
    groups = [images_of(1 + index % TINY_MAX_GROUP, rng) for index in range(64)]
    in_turn = [infer(detector, images) for images in groups]
    with ThreadPoolExecutor(8) as threads:
        at_once = list(threads.map(lambda images: infer(detector, images), groups))
    for maps, expected in zip(at_once, in_turn, strict=True):
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6)


def test_eight_threads_with_tensors_and_arrays_mixed_get_their_own_maps(
    detector: gr.Detector, rng: np.random.Generator
) -> None:
    device = need_torch_cuda()
    groups = [images_of(1 + index % TINY_MAX_GROUP, rng) for index in range(64)]
    in_turn = [infer(detector, images) for images in groups]

    def ask(index: int) -> FloatArray:
        if index % 2:
            return infer(detector, groups[index])
        with torch.cuda.stream(torch.cuda.Stream()):
            maps: DeviceArray = detector.detect_on_device(torch.from_numpy(groups[index]).to(device))
            return np.asarray(torch.from_dlpack(maps).cpu().numpy())

    with ThreadPoolExecutor(8) as threads:
        at_once = list(threads.map(ask, range(64)))
    for maps, expected in zip(at_once, in_turn, strict=True):
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6)


def test_two_sessions_share_the_gpu(plan: Path, rng: np.random.Generator) -> None:
    first, second = (gr.load(plan, device="cuda") for _ in range(2))
    groups = [images_of(2, rng) for _ in range(32)]
    expected = [infer(first, images) for images in groups]
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(lambda d: [infer(d, images) for images in groups], d) for d in (first, second)]
        for answers in (done.result() for done in both):
            np.testing.assert_array_equal(np.concatenate(answers), np.concatenate(expected))


# Errors


def test_a_group_beyond_the_plans_largest_is_a_usage_error(plan: Path, rng: np.random.Generator) -> None:
    detector = gr.load(plan, device="cuda")
    images = images_of(TINY_MAX_GROUP + 1, rng)
    complaint = rf"{TINY_MAX_GROUP + 1} photos: .* takes up to {TINY_MAX_GROUP}; .*--max-group {TINY_MAX_GROUP + 1}"
    with pytest.raises(gr.UsageError, match=complaint):
        infer(detector, images)
    with pytest.raises(gr.UsageError, match=complaint):
        detector.detect([np.zeros((8, 8, 3), np.uint8)] * (TINY_MAX_GROUP + 1))
    assert infer(detector, images[:2]).shape == (2, 1, TINY_SIZE, TINY_SIZE)


def changed(bundle: Path, folder: Path, plan: bytes, **changes: Any) -> Path:
    """A copy of a bundle with another plan, which its manifest vouches for."""
    copy = folder / "copy.gconet"
    shutil.copytree(bundle, copy)
    (copy / "detect.plan").write_bytes(plan)
    document = json.loads((copy / MANIFEST_NAME).read_text("utf-8"))
    document["files"]["detect.plan"] = vars(describe_file(copy / "detect.plan"))
    (copy / MANIFEST_NAME).write_text(json.dumps(document | changes), "utf-8")
    return copy


def test_a_truncated_plan_is_one_line(plan: Path, tmp_path: Path) -> None:
    whole = (plan / "detect.plan").read_bytes()
    with pytest.raises(gr.BundleError, match=r"cannot load .*detect\.plan on GPU 0 .*: build it again with") as caught:
        gr.load(changed(plan, tmp_path, whole[: len(whole) // 2]), device="cuda")
    assert "\n" not in str(caught.value)


def test_a_plan_of_another_version_names_both(plan: Path, tmp_path: Path) -> None:
    bundle = changed(plan, tmp_path, b"a plan of the past" * 99, target_version="8.6.1")
    with pytest.raises(gr.TargetError, match=r"its plan is of TensorRT.* 8\.6\.1, this is .*: .*build it again with"):
        gr.load(bundle, device="cuda")


def test_a_gpu_that_is_not_there_is_told(plan: Path) -> None:
    with pytest.raises(gr.TargetError, match="no GPU 99 on this machine"):
        gr.load(plan, device="cuda:99")


def test_bench_times_copies_computation_and_launches_apart(plan: Path, tmp_path: Path) -> None:
    report = tmp_path / "latency.json"
    arguments = ["--bundle", str(plan), "--no-eager", "--no-parity", "--rounds", "5", "--json", str(report)]
    assert run(latency.main, arguments) == 0
    (row,) = json.loads(report.read_text("utf-8"))["rows"]
    assert all(value > 0 for value in row["gpu"].values())
    assert row["device_memory_mb"] > 0
    if torch.cuda.is_available():
        assert row["projection"]["ms"] > 0
        assert 0 < row["roofline"]["share_of_peak"] < 1
