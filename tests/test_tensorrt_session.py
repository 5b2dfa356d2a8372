"""The TensorRT session on an imaginary GPU: buffers, graphs and kernels; real GPUs: test_gpu_*.py."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeArray, FakeDriver
from fake_tensorrt import (
    fake_network,
    fake_plan,
)
from imaginary_sessions import PROFILES, SIZE, SessionMaker, images_of, write_bundle

import gconet.runtime as gr
from gconet.runtime import tensorrt_kernels
from gconet.runtime.dlpack import read_capsule
from gconet.runtime.tensorrt_kernels import cache_folder
from gconet.runtime.tensorrt_session import GROUP_SIZES

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
def test_without_a_home_there_is_no_cache(
    make_session: SessionMaker, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a user that the system has no entry of, in a container."""
    monkeypatch.setattr(tensorrt_kernels, "cache_folder", cache_folder)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 9)
    images = images_of(2, rng)
    np.testing.assert_array_equal(make_session("tensorrt-rtx").infer({"images": images})["maps"], fake_network(images))


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
