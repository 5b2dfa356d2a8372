"""What the TensorRT session refuses, profiles, and its imaginary library against the real one's interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import require_tensorrt_rtx
from fake_cuda import FakeArray, FakeDriver
from fake_tensorrt import (
    VERSION,
    Engine,
    IRuntimeCache,
    IRuntimeConfig,
    OnnxParserRefitter,
    Refitter,
    RtxExecutionContext,
    RtxRuntime,
    fake_network,
    fake_plan,
)
from imaginary_sessions import PROFILES, SIZE, SessionMaker, images_of, write_bundle

import gconet.runtime as gr
from gconet.engines.registry import get_target
from gconet.runtime import cuda, tensorrt_engine
from gconet.runtime.session import why_not_runnable
from gconet.runtime.tensorrt_library import load_tensorrt
from gconet.runtime.tensorrt_profiles import Profile, choose_profile


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        (np.zeros((2, 4, SIZE, SIZE), np.float32), r"float32 \(2, 4, 32, 32\) is no input .* float32 \(N, 3, 32, 32\)"),
        (np.zeros((2, 3, SIZE, SIZE), np.float64), "float64"),
        (np.zeros((3, SIZE, SIZE), np.float32), "is no input"),
        (np.zeros((0, 3, SIZE, SIZE), np.float32), "at least one photo"),
        (np.zeros((13, 3, SIZE, SIZE), np.float32), r"13 photos: .* takes up to 12; .* `--max-group 13`"),
    ],
    ids=["channels", "double", "one photo", "empty", "too many"],
)
def test_input_the_plan_does_not_take_is_a_usage_error(
    images: Any, complaint: str, driver: FakeDriver, make_session: SessionMaker
) -> None:
    session = make_session()
    with pytest.raises(gr.UsageError, match=complaint):
        session.infer({"images": images})
    if images.dtype == np.float32 and len(images):
        with pytest.raises(gr.UsageError, match=complaint):
            session.infer_device({"images": FakeArray(driver, images)})


def test_output_of_the_wrong_shape_or_over_the_input_is_a_usage_error(
    driver: FakeDriver, make_session: SessionMaker
) -> None:
    images = FakeArray(driver, np.zeros((2, 3, SIZE, SIZE), np.float32))
    with pytest.raises(gr.UsageError, match=r"maps: its shape is \(2, 3, 32, 32\), it must be \(2, 1, 32, 32\)"):
        make_session().infer_device({"images": images}, {"maps": images})
    within = FakeArray(driver, np.zeros((2, 1, SIZE, SIZE), np.float32), data=(images.pointer, False))
    with pytest.raises(gr.UsageError, match="maps: it overlaps images in memory"):
        make_session().infer_device({"images": images}, {"maps": within})


def test_a_failure_of_tensorrt_is_a_target_error_in_its_words(make_session: SessionMaker, rng: Any) -> None:
    session = make_session(refuses="IExecutionContext::enqueueV3: Cuda failure (out of memory)\nsomewhere")
    with pytest.raises(gr.TargetError, match=r"^TensorRT cannot run a group of 2 photos: .*out of memory\)$"):
        session.infer({"images": images_of(2, rng)})


def test_a_group_that_does_not_fit_into_memory_leaves_the_session_usable(
    driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    images = images_of(2, rng)
    session.infer({"images": images})
    driver.memory_limit = 80_000
    with pytest.raises(gr.TargetError, match=r"group of 12 photos: cuMemAlloc on GPU 0 .*CUDA_ERROR_OUT_OF_MEMORY"):
        session.infer({"images": images_of(12, rng)})
    for _ in range(3):
        np.testing.assert_array_equal(session.infer({"images": images})["maps"], fake_network(images))


def load_error(bundle: Path, kind: type[gr.GconetError] = gr.TargetError, device: str = "auto") -> str:
    with pytest.raises(kind) as caught:
        gr.load(bundle, device=device)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_without_a_gpu_a_plan_says_what_it_needs(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> Any:
        raise gr.TargetError("cuda-python cannot be imported (No module named 'cuda'): pip install cuda-bindings")

    monkeypatch.setattr(cuda, "load_driver", no_driver)
    bundle = write_bundle(tmp_path / "a.gconet", b"plan", target=target)
    message = load_error(bundle)
    assert message.startswith(f"{bundle} cannot run here: a {target} plan needs an NVIDIA GPU")
    assert "pip install cuda-bindings" in message
    assert "gconet build --target auto" in message
    assert "pip install cuda-bindings" in str(why_not_runnable(target))


def test_a_gpu_that_is_too_old_or_absent_is_told(driver: FakeDriver, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "a.gconet", fake_plan(SIZE, PROFILES))
    assert why_not_runnable("tensorrt") is None
    assert "no GPU 3 on this machine, 1 can be seen" in load_error(bundle, device="cuda:3")
    driver.capability = (6, 1)
    message = load_error(bundle)
    assert "has compute capability 6.1, TensorRT needs 7.5 or newer" in message
    assert "--target onnxruntime --precision fp32" in message


@pytest.mark.usefixtures("driver")
def test_a_missing_library_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_engine, "load_tensorrt", load_tensorrt)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    assert "pip install tensorrt;" in load_error(write_bundle(tmp_path / "a.gconet", b"plan"))


@pytest.mark.usefixtures("driver")
def test_a_plan_of_another_version_names_both_and_what_to_do(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "a.gconet", b"old plan", target_version="10.9.0.34")
    message = load_error(bundle)
    assert f"{bundle} cannot run here: its plan is of TensorRT 10.9.0.34, this is {VERSION}: pip install" in message
    assert "tensorrt==10.9.0.34, or build it again with `gconet" in message
    rtx = write_bundle(tmp_path / "b.gconet", b"old plan", target_version="1.0", target="tensorrt-rtx")
    assert "its plan is of TensorRT for RTX 1.0" in load_error(rtx)


@pytest.mark.usefixtures("driver")
def test_a_plan_of_another_version_runs_where_it_was_built_to(tmp_path: Path, rng: np.random.Generator) -> None:
    plan = fake_plan(SIZE, PROFILES, needs_host_code=True)
    options = {"version_compatible": True}
    bundle = write_bundle(tmp_path / "a.gconet", plan, target_version="10.9.0.34", plan_options=options)
    images = images_of(2, rng)
    np.testing.assert_array_equal(gr.load(bundle).session.infer({"images": images})["maps"], fake_network(images))
    assert "10.9.0.34" in load_error(write_bundle(tmp_path / "b.gconet", plan, target_version="10.9.0.34"))


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_a_truncated_plan_is_a_bundle_error(target: str, tmp_path: Path) -> None:
    plan = fake_plan(SIZE, PROFILES)
    bundle = write_bundle(tmp_path / "a.gconet", plan[:20], target=target)
    message = load_error(bundle, gr.BundleError)
    assert f"cannot load {bundle / 'detect.plan'} on GPU 0 (Imaginary 0)" in message
    assert ("MALFORMED_ENGINE" if target == "tensorrt-rtx" else "magic tag") in message
    assert f"`gconet build --target {target} --precision fp16`" in message
    (bundle / "detect.plan").write_bytes(plan)  # no longer what the manifest vouches for
    assert "size or SHA-256 differs" in load_error(bundle, gr.BundleError)


@pytest.mark.usefixtures("driver")
def test_a_plan_for_other_gpus_names_them_and_this_one(tmp_path: Path) -> None:
    elsewhere = write_bundle(tmp_path / "a.gconet", b"plan", compute_capabilities=("8.6", "12.0"))
    assert "is for compute capability 8.6, 12.0, GPU 0 (Imaginary 0) has 8.9: build it again" in load_error(elsewhere)
    plan = fake_plan(SIZE, PROFILES, flags=2)  # UNSUPPORTED_CC
    old = write_bundle(tmp_path / "c.gconet", fake_plan(SIZE, PROFILES, flags=4), target="tensorrt-rtx")
    assert load_error(old).endswith(f"the NVIDIA driver is too old for TensorRT for RTX {VERSION}: update it")
    rtx = write_bundle(tmp_path / "b.gconet", plan, target="tensorrt-rtx")
    assert load_error(rtx).endswith("`gconet build --target tensorrt-rtx --precision fp16 --compute-capability 8.9`")


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("facts", "complaint"),
    [({"names": ["x", "y"]}, "no plan of GCoNet (it has x, y)"), ({"dtype": "HALF"}, "does not take and give float32")],
    ids=["names", "half"],
)
def test_a_plan_of_something_else_is_a_bundle_error(facts: Any, complaint: str, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "a.gconet", fake_plan(SIZE, PROFILES, **facts))
    assert complaint in load_error(bundle, gr.BundleError)


@pytest.mark.usefixtures("driver")
def test_a_plan_without_weights_gets_them_from_the_graph_beside_it(tmp_path: Path, rng: np.random.Generator) -> None:
    plan = fake_plan(SIZE, PROFILES, stripped=True)
    images = images_of(2, rng)
    bundle = write_bundle(tmp_path / "a.gconet", plan, b"weights", weights_stripped=True)
    np.testing.assert_array_equal(gr.load(bundle).session.infer({"images": images})["maps"], fake_network(images))
    other = write_bundle(tmp_path / "b.gconet", plan, b"others", weights_stripped=True)
    message = load_error(other, gr.BundleError)
    assert f"the weights in {other / 'weights.onnx'} do not fit the plan beside them (1 are missing)" in message
    none = write_bundle(tmp_path / "c.gconet", plan, weights_stripped=True)
    assert "weights.onnx" in load_error(none, gr.BundleError)


# Profiles


@pytest.mark.parametrize(("count", "chosen"), [(1, 0), (2, 1), (4, 1), (5, 2), (8, 2), (9, 3), (64, 3)])
def test_a_group_goes_to_the_narrowest_profile_that_takes_it(count: int, chosen: int) -> None:
    profiles = [Profile(0, 1, 1, 1), Profile(1, 1, 2, 4), Profile(2, 1, 5, 8), Profile(3, 1, 20, 64)]
    assert choose_profile(profiles, count, "b").index == chosen
    assert choose_profile(profiles[::-1], count, "b").index == chosen


def test_of_profiles_equally_wide_the_one_for_the_nearest_size_is_chosen() -> None:
    profiles = [Profile(0, 1, 1, 8), Profile(1, 1, 4, 8), Profile(2, 1, 8, 8)]
    assert [choose_profile(profiles, count, "b").index for count in range(1, 9)] == [0, 0, 1, 1, 1, 1, 2, 2]


def test_a_group_between_the_profiles_is_a_usage_error() -> None:
    profiles = [Profile(0, 1, 1, 1), Profile(1, 4, 4, 8)]
    with pytest.raises(gr.UsageError, match="2 photos: b takes groups of 1 to 1, 4 to 8 only"):
        choose_profile(profiles, 2, "b")


# The imaginary TensorRT against the real one's interface


def test_the_imaginary_tensorrt_has_the_real_ones_functions() -> None:
    require_tensorrt_rtx()
    trt = load_tensorrt("tensorrt-rtx")
    imaginary: dict[str, type] = {
        "Runtime": RtxRuntime,
        "ICudaEngine": Engine,
        "IExecutionContext": RtxExecutionContext,
        "IRuntimeConfig": IRuntimeConfig,
        "IRuntimeCache": IRuntimeCache,
        "Refitter": Refitter,
        "OnnxParserRefitter": OnnxParserRefitter,
    }
    for name, fake in imaginary.items():
        methods = {m: f for c in fake.mro()[:-1] for m, f in vars(c).items() if inspect.isfunction(f)}
        for method, function in methods.items():
            if method.startswith("_"):
                continue
            documentation = getattr(getattr(trt, name), method).__doc__
            for argument in list(inspect.signature(function).parameters)[1:]:
                assert argument == "how" or f"{argument}: " in documentation, (name, method, argument)
    for attribute in ("num_io_tensors", "num_optimization_profiles"):
        assert hasattr(trt.ICudaEngine, attribute)
    assert hasattr(trt.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert hasattr(trt.Runtime, "engine_host_code_allowed")
    assert trt.ExecutionContextAllocationStrategy.USER_MANAGED
    assert trt.DynamicShapesKernelSpecializationStrategy.EAGER


@pytest.mark.usefixtures("driver")
def test_the_real_library_refuses_a_damaged_plan_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_tensorrt_rtx()
    monkeypatch.setattr(tensorrt_engine, "load_tensorrt", load_tensorrt)
    version = load_tensorrt("tensorrt-rtx").__version__
    bundle = write_bundle(tmp_path / "a.gconet", b"ftrt" * 64, target="tensorrt-rtx", target_version=version)
    message = load_error(bundle, gr.BundleError)
    assert "MALFORMED_ENGINE" in message
    assert "`gconet build --target tensorrt-rtx --precision fp16`" in message


@pytest.mark.usefixtures("driver")
def test_the_real_library_without_its_driver_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Callable[[str, str], Path]
) -> None:
    require_tensorrt_rtx()
    if get_target("tensorrt-rtx").runs_here() is None:
        pytest.skip("this machine has the driver")
    monkeypatch.setattr(tensorrt_engine, "load_tensorrt", load_tensorrt)
    assert "the NVIDIA driver is too old for TensorRT for RTX" in load_error(tiny_bundle("tensorrt-rtx", "fp16"))
