"""The TensorRT session on an imaginary GPU: buffers, graphs, profiles and errors; real GPUs: test_gpu_sessions.py."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    fake_tensorrt,
)

import gconet.runtime as gr
from gconet.engines.bundle_writer import describe_files, write_manifest
from gconet.engines.registry import get_target
from gconet.runtime import cuda, tensorrt_engine, tensorrt_kernels
from gconet.runtime.dlpack import read_capsule
from gconet.runtime.preprocess import FloatArray, Preprocessing
from gconet.runtime.session import SessionOptions, why_not_runnable
from gconet.runtime.tensorrt_library import load_tensorrt
from gconet.runtime.tensorrt_profiles import Profile, choose_profile
from gconet.runtime.tensorrt_session import GROUP_SIZES, TensorRtSession

SIZE = 32
PROFILES = [(1, 1, 1), (2, 5, 8), (9, 10, 12)]
SessionMaker = Callable[..., TensorRtSession]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> FakeDriver:
    """An imaginary GPU in place of what this machine has, with the TensorRT that runs on it, and an empty cache."""
    fake = FakeDriver()
    cache = tmp_path_factory.mktemp("cache") / "gconet"
    monkeypatch.setattr(tensorrt_kernels, "cache_folder", lambda: cache)
    monkeypatch.setattr(cuda, "load_driver", lambda: fake)
    monkeypatch.setattr(
        tensorrt_engine, "load_tensorrt", lambda product: fake_tensorrt(fake, rtx=product == "tensorrt-rtx")
    )
    return fake


def write_bundle(folder: Path, plan: bytes, weights: bytes | None = None, **changes: Any) -> Path:
    """A bundle of an imaginary plan."""
    folder.mkdir()
    paths = [folder / "detect.plan"]
    paths[0].write_bytes(plan)
    if weights is not None:
        paths.append(folder / "weights.onnx")
        paths[1].write_bytes(weights)
    facts: dict[str, Any] = {
        "target": "tensorrt",
        "precision": "fp16",
        "target_version": VERSION,
        "preprocessing": Preprocessing(SIZE),
        "max_group": 12,
        "files": describe_files(paths),
        "architecture": {},
        "checkpoint": {},
        "opset": 18,
        "created": "2026-01-01T00:00:00+00:00",
    }
    write_manifest(folder, gr.Manifest(**facts | changes))
    return folder


@pytest.fixture
def make_session(driver: FakeDriver, tmp_path: Path) -> SessionMaker:  # noqa: ARG001 (must be there first)
    """Sessions of plans with some facts, of bundles with some changes."""

    def make(target: str = "tensorrt", cuda_graphs: bool = True, **facts: Any) -> TensorRtSession:
        folder = write_bundle(
            tmp_path / f"{len(list(tmp_path.iterdir()))}.gconet", fake_plan(SIZE, PROFILES, **facts), target=target
        )
        return TensorRtSession(gr.open_bundle(folder), SessionOptions("cuda", cuda_graphs=cuda_graphs))

    return make


def images_of(count: int, rng: np.random.Generator) -> FloatArray:
    return rng.standard_normal((count, 3, SIZE, SIZE), np.float32)


# From and to the host


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_every_call_gives_the_networks_maps(
    target: str, cuda_graphs: bool, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session(target, cuda_graphs)
    assert session.max_group == 12
    for count in (2, 2, 2, 12, 1, 1, 2, 9, 2, 2):  # plain, captured, launched; new memory in between
        images = images_of(count, rng)
        maps = session.infer({"images": images})["maps"]
        np.testing.assert_array_equal(maps, fake_network(images))


def test_maps_stay_the_callers(make_session: SessionMaker, rng: np.random.Generator) -> None:
    session = make_session()
    first, second = images_of(3, rng), images_of(3, rng)
    maps = session.infer({"images": first})["maps"]
    session.infer({"images": second})
    np.testing.assert_array_equal(maps, fake_network(first))


def test_strided_input_is_as_good_as_its_copy(make_session: SessionMaker, rng: np.random.Generator) -> None:
    images = images_of(6, rng)[::-2]
    maps = make_session().infer({"images": images})["maps"]
    np.testing.assert_array_equal(maps, fake_network(np.ascontiguousarray(images)))


def test_a_group_size_is_captured_at_its_second_call_and_launched_from_then_on(
    driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    launches = []
    for _ in range(4):
        session.infer({"images": images_of(5, rng)})
        launches.append(driver.calls["cuGraphLaunch"])
    assert launches == [0, 1, 2, 3]
    assert driver.calls["cuGraphInstantiate"] == 1
    (context,) = session._engine.engine.contexts
    assert context.runs == 2  # the plain one, and the one that was captured
    assert context.profile == 1


def test_a_call_waits_for_the_gpu_once(
    driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    for cuda_graphs in range(3):
        session.infer({"images": images_of(4, rng)})
        before = driver.calls.copy()
        session.infer({"images": images_of(4, rng)})
        during = driver.calls - before
        assert during["cuStreamSynchronize"] == 1, cuda_graphs
        assert not during.keys() & {"cuMemAlloc", "cuMemHostAlloc", "cuMemFree", "cuEventSynchronize"}


def test_graphs_can_be_turned_off(driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator) -> None:
    session = make_session(cuda_graphs=False)
    for _ in range(3):
        session.infer({"images": images_of(5, rng)})
    assert driver.calls["cuStreamBeginCapture"] == 0


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_a_plan_that_cannot_be_captured_runs_without_graphs(
    target: str, driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session(target, loop=True)
    for _ in range(4):
        images = images_of(5, rng)
        np.testing.assert_array_equal(session.infer({"images": images})["maps"], fake_network(images))
    assert driver.calls["cuStreamBeginCapture"] == (target == "tensorrt")  # tried once; RTX can be asked
    assert driver.calls["cuGraphLaunch"] == 0


def test_a_few_group_sizes_are_kept_ready(
    driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    for count in [12, *range(1, 12)] * 2:
        for _ in range(3):
            images = images_of(count, rng)
            np.testing.assert_array_equal(session.infer({"images": images})["maps"], fake_network(images))
    assert len(session._runners) == GROUP_SIZES
    assert len(driver.executables) == GROUP_SIZES
    assert len(session._engine.engine.contexts) == 24


def test_memory_is_what_the_largest_group_needed(
    driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    photo = 3 * SIZE * SIZE * 4

    def held(largest: int) -> int:
        return largest * (photo + photo // 3 + 1000)

    for count, largest in [(1, 1), (2, 2), (9, 9), (3, 9)]:
        session.infer({"images": images_of(count, rng)})
        assert sum(map(len, driver.memory.values())) == held(largest)
        assert sum(map(len, driver.pinned.values())) == held(largest) - largest * 1000


def test_everything_is_given_back_with_the_session(
    driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    for _ in range(3):
        session.infer({"images": images_of(2, rng)})
        session.infer_device({"images": FakeArray(driver, images_of(2, rng))})
    driver.memory.clear()  # the arrays above, which nobody frees
    del session
    gc.collect()
    assert not driver.pinned
    assert not driver.executables
    assert not driver.events
    assert driver.streams.keys() == {1}
    assert driver.contexts() == []


def test_eight_threads_with_groups_of_different_sizes_get_their_own_maps(
    make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    groups = [images_of(1 + index % 12, rng) for index in range(64)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda images: session.infer({"images": images})["maps"], groups))
    for images, maps in zip(groups, answers, strict=True):
        np.testing.assert_array_equal(maps, fake_network(images))


# Kernels that are compiled at first use


@pytest.mark.usefixtures("driver")
def test_kernels_compiled_by_one_process_are_there_for_the_next(tmp_path: Path, rng: np.random.Generator) -> None:
    bundle = write_bundle(tmp_path / "a.gconet", fake_plan(SIZE, PROFILES), target="tensorrt-rtx")

    def compiled(*counts: int) -> list[int]:
        session: Any = gr.load(bundle).session
        for count in counts:
            images = images_of(count, rng)
            np.testing.assert_array_equal(session.infer({"images": images})["maps"], fake_network(images))
        return list(session._engine.engine.compiled)

    assert compiled(2, 5, 2, *range(1, 13), 2, 5) == [2, 5, 1, 3, 4, 6, 7, 8, 9, 10, 11, 12]  # more than are kept ready
    assert compiled(5, 2) == []
    (file,) = tensorrt_kernels.cache_folder().iterdir()
    assert file.name.endswith("-Imaginary-0.kernels")
    modified = file.stat().st_mtime_ns
    assert compiled(9) == []
    assert file.stat().st_mtime_ns == modified
    file.write_bytes(b"from another driver")
    assert compiled(2) == [2]
    assert compiled(2) == []


@pytest.mark.usefixtures("driver")
def test_a_cache_that_cannot_be_written_is_done_without(
    make_session: SessionMaker, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tensorrt_kernels, "cache_folder", lambda: tmp_path / "file" / "gconet")
    images = images_of(2, rng)
    maps = make_session("tensorrt-rtx").infer({"images": images})["maps"]
    np.testing.assert_array_equal(maps, fake_network(images))


def test_the_cache_lies_where_the_system_keeps_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tensorrt_kernels.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tensorrt_kernels.cache_folder() == tmp_path / "gconet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert tensorrt_kernels.cache_folder() == Path.home() / ".cache" / "gconet"


# From and to the GPU


def test_arrays_on_the_gpu_are_used_where_they_lie_and_nobody_waits(
    driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    values = images_of(3, rng)
    images, maps = FakeArray(driver, values), FakeArray(driver, np.zeros((3, 1, SIZE, SIZE), np.float32))
    for call in range(3):
        waits = driver.calls["cuStreamSynchronize"]
        computed = session.infer_device({"images": images}, {"maps": maps})["maps"]
        assert driver.calls["cuStreamSynchronize"] == waits + (call == 0)  # once for new working memory
        assert computed.pointer == maps.pointer
        assert computed.shape == (3, 1, SIZE, SIZE)
    assert driver.calls["cuGraphLaunch"] == 2
    assert driver.calls["cuMemcpyHtoDAsync"] == driver.calls["cuMemcpyDtoHAsync"] == 0
    assert not maps.read().any()  # nothing has run yet
    computed.synchronize()
    np.testing.assert_array_equal(maps.read(), fake_network(values))


def test_new_memory_is_handed_out_where_none_is_given(
    driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    values = images_of(2, rng)
    computed = session.infer_device({"images": FakeArray(driver, values)})["maps"]
    again = session.infer_device({"images": FakeArray(driver, -values)})["maps"]
    assert read_capsule(computed.__dlpack__(stream=1)).pointer == computed.pointer != again.pointer
    np.testing.assert_array_equal(computed.numpy(), fake_network(values))
    np.testing.assert_array_equal(again.numpy(), fake_network(-values))


def test_an_output_is_kept_until_the_gpu_has_written_it(
    driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    images, maps = FakeArray(driver, images_of(2, rng)), FakeArray(driver, np.zeros((2, 1, SIZE, SIZE), np.float32))
    session.infer_device({"images": images}, {"maps": maps})  # and the caller forgets all of them
    assert [kept.owner for _, kept in session._in_use] == [images, maps]


def test_an_input_is_kept_until_the_gpu_has_read_it(
    driver: FakeDriver, make_session: SessionMaker, rng: np.random.Generator
) -> None:
    session = make_session()
    first, second, third = (FakeArray(driver, images_of(2, rng)) for _ in range(3))
    done = session.infer_device({"images": first})["maps"]
    later = session.infer_device({"images": second})["maps"]  # held: to free it would wait for the GPU
    assert [kept.owner for _, kept in session._in_use] == [first, second]
    done.synchronize()
    last = session.infer_device({"images": third})["maps"]
    assert not later.ready.is_done()
    assert not last.ready.is_done()
    assert [kept.owner for _, kept in session._in_use] == [second, third]


def test_the_detector_takes_network_input_on_the_gpu(driver: FakeDriver, tmp_path: Path, rng: Any) -> None:
    detector = gr.load(write_bundle(tmp_path / "a.gconet", fake_plan(SIZE, PROFILES)), device="cuda")
    values = images_of(2, rng)
    maps = FakeArray(driver, np.zeros((2, 1, SIZE, SIZE), np.float32))
    computed = detector.detect_on_device(FakeArray(driver, values), maps)
    np.testing.assert_array_equal(computed.numpy(), fake_network(values))
    np.testing.assert_array_equal(maps.read(), fake_network(values))
    photos = [rng.integers(0, 256, (20, 30, 3), np.uint8) for _ in range(2)]
    assert [saliency.shape for saliency in detector.detect(photos)] == [(20, 30), (20, 30)]


# Errors


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


def test_output_of_the_wrong_shape_is_a_usage_error(driver: FakeDriver, make_session: SessionMaker) -> None:
    images = FakeArray(driver, np.zeros((2, 3, SIZE, SIZE), np.float32))
    with pytest.raises(gr.UsageError, match=r"maps: its shape is \(2, 3, 32, 32\), it must be \(2, 1, 32, 32\)"):
        make_session().infer_device({"images": images}, {"maps": images})


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
