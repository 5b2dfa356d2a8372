"""CUDA graphs of ONNX Runtime: one for each of the first sizes, on one thread, and plain runs for the others."""

from __future__ import annotations

import _thread
import ctypes
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import TINY_SIZE
from fake_cuda import FakeArray, FakeDriver
from fake_tensorrt import fake_network

import gconet.runtime as gr
from gconet.runtime import cuda, onnxruntime_providers
from gconet.runtime.onnxruntime_graphs import SIZES, OnnxRuntimeGraphs
from gconet.runtime.onnxruntime_session import OnnxRuntimeSession
from gconet.runtime.session import SessionOptions

BundleMaker = Callable[[str, str], Path]
PLAIN = "-1"


class Options(dict[str, str]):
    """Of a run."""

    add_run_config_entry = dict.__setitem__


class Value:
    """An OrtValue on the imaginary GPU."""

    def __init__(self, driver: FakeDriver, shape: tuple[int, ...]) -> None:
        self.array = FakeArray(driver, np.zeros(shape, np.float32))

    def data_ptr(self) -> int:
        return self.array.pointer

    def update_inplace(self, values: Any) -> None:
        np.copyto(self.array.driver.tensor(self.array.pointer, self.array.shape), values)

    def numpy(self) -> Any:
        return self.array.read().copy()


class Session:
    """An imaginary session that captures: a graph answers from and to where it did when it was captured."""

    def __init__(self, driver: FakeDriver) -> None:
        self.driver = driver
        self.ids: list[str] = []
        self.graphs: dict[str, dict[str, Any]] = {}
        self.threads: set[int] = set()
        self.busy = threading.Lock()
        self.refuses = ""  # the graph that it fails to run

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": {"enable_cuda_graph": "1"}}

    def io_binding(self) -> Any:
        binding: dict[str, Any] = {}

        def bind(name: str, *place: Any) -> None:
            binding[name] = place

        def bind_input(name: str, *place: Any) -> None:
            binding[name] = (
                (self.array(place).copy(),) if place[0] == "cpu" else place
            )  # it is copied to the GPU at once

        return SimpleNamespace(
            bind_ortvalue_input=bind,
            bind_ortvalue_output=bind,
            bind_cpu_input=bind,
            bind_input=bind_input,
            bind_output=bind,
            bound=binding,
        )

    def run_with_iobinding(self, binding: Any, options: Options) -> None:
        assert self.busy.acquire(blocking=False), "two runs at a time"
        time.sleep(0.002)
        self.threads.add(threading.get_ident())
        graph = options["gpu_graph_id"]
        self.ids.append(graph)
        try:
            if graph == self.refuses:
                raise RuntimeError("operation not permitted when stream is capturing")
            bound = binding.bound if graph == PLAIN else self.graphs.setdefault(graph, binding.bound)
            images, maps = (self.array(bound[name]) for name in ("images", "maps"))
            np.copyto(maps, fake_network(images))
        finally:
            self.busy.release()

    def array(self, place: tuple[Any, ...]) -> Any:
        if isinstance(place[0], Value):
            return self.driver.tensor(place[0].data_ptr(), place[0].array.shape)
        if isinstance(place[0], np.ndarray):
            return place[0]
        where, _, _, shape, pointer = place
        if where == "cuda":
            return self.driver.tensor(pointer, shape)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape)


class Fixture(SimpleNamespace):
    session: OnnxRuntimeSession
    engine: Session
    driver: FakeDriver

    def check(self, images: Any) -> None:
        np.testing.assert_array_equal(self.session.infer({"images": images})["maps"], fake_network(images))


@pytest.fixture
def gpu(tiny_bundle: BundleMaker, monkeypatch: pytest.MonkeyPatch) -> Fixture:
    driver = FakeDriver()
    engine = Session(driver)
    monkeypatch.setattr(cuda, "load_driver", lambda: driver)
    monkeypatch.setattr(onnxruntime_providers, "create_session", lambda *_: engine)
    monkeypatch.setattr(onnxruntime, "RunOptions", Options)
    value = SimpleNamespace(ortvalue_from_shape_and_type=lambda shape, *_: Value(driver, shape))
    monkeypatch.setattr(onnxruntime, "OrtValue", value)
    session = OnnxRuntimeSession(gr.open_bundle(tiny_bundle("onnxruntime", "fp16")), SessionOptions("cuda"))
    return Fixture(session=session, engine=engine, driver=driver)


def images_of(count: int, rng: np.random.Generator) -> Any:
    return rng.standard_normal((count, 3, TINY_SIZE, TINY_SIZE), np.float32)


def test_the_first_sizes_have_a_graph_each_and_the_others_run_plainly(gpu: Fixture, rng: np.random.Generator) -> None:
    sizes = [2, 2, 1, 4, 2, 3, 5, 6, 2, 5]
    for count in sizes:
        gpu.check(images_of(count, rng))
    graphs = list(dict.fromkeys(sizes))[:SIZES]
    assert gpu.engine.ids == [str(count) if count in graphs else PLAIN for count in sizes]


def test_maps_are_the_callers_own(gpu: Fixture, rng: np.random.Generator) -> None:
    images = images_of(2, rng)
    first = gpu.session.infer({"images": images})["maps"]
    gpu.check(images_of(2, rng))
    np.testing.assert_array_equal(first, fake_network(images))


def test_threads_take_turns_on_one_that_is_not_theirs(gpu: Fixture, rng: np.random.Generator) -> None:
    groups = [images_of(1 + index % 6, rng) for index in range(24)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(gpu.check, groups))
    assert len(gpu.engine.threads) == 1
    assert threading.get_ident() not in gpu.engine.threads


def test_a_size_that_cannot_be_captured_runs_plainly_for_good(
    gpu: Fixture, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gconet")
    gpu.engine.refuses = "3"
    for _ in range(2):
        gpu.check(images_of(3, rng))
    assert gpu.engine.ids == ["3", PLAIN, PLAIN]
    assert [record.message for record in caplog.records if "without a CUDA graph" in record.message] == [
        "groups of 3 photos run without a CUDA graph: operation not permitted when stream is capturing"
    ]
    gpu.check(images_of(2, rng))
    gpu.engine.refuses = "2"  # a graph that was there: the engine is broken
    with pytest.raises(gr.TargetError, match="cannot run a group of 2 photos"):
        gpu.check(images_of(2, rng))


def test_what_a_graph_is_not_made_for_is_left_to_the_engine(gpu: Fixture, rng: np.random.Generator) -> None:
    gpu.check(images_of(2, rng))
    for images in (images_of(2, rng)[..., ::2], images_of(2, rng).astype(np.float64)):
        gpu.session.infer({"images": images})
    assert gpu.engine.ids == ["2", PLAIN, PLAIN]


def test_arrays_on_the_gpu_go_through_the_same_graph(gpu: Fixture, rng: np.random.Generator) -> None:
    for count, graph in [(2, "2"), (2, "2"), (1, "1"), (3, "3"), (4, "4"), (5, PLAIN)]:
        values = images_of(count, rng)
        images = FakeArray(gpu.driver, values)
        maps = FakeArray(gpu.driver, np.zeros((count, 1, TINY_SIZE, TINY_SIZE), np.float32))
        gpu.session.infer_device({"images": images}, {"maps": maps})
        np.testing.assert_array_equal(maps.read(), fake_network(values))
        assert gpu.engine.ids[-1] == graph
    gpu.check(images_of(2, rng))
    assert gpu.engine.ids[-1] == "2"


def test_into_the_callers_memory_it_runs_plainly_and_sees_what_changed_there(
    gpu: Fixture, rng: np.random.Generator
) -> None:
    images, maps = images_of(2, rng), np.zeros((2, 1, TINY_SIZE, TINY_SIZE), np.float32)
    for _ in range(2):
        images[...] = images_of(2, rng)
        gpu.session.run_into("detect", {"images": images}, {"maps": maps})
        np.testing.assert_array_equal(maps, fake_network(images))
    assert gpu.engine.ids == [PLAIN, PLAIN]


def test_a_real_session_answers_from_the_memory_of_a_group(tiny_bundle: BundleMaker, rng: np.random.Generator) -> None:
    """On a CPU, which ignores the names of graphs."""
    bundle = gr.open_bundle(tiny_bundle("onnxruntime", "fp32"))
    plain = OnnxRuntimeSession(bundle, SessionOptions())
    engine = onnxruntime_providers.create_session(onnxruntime, bundle, SessionOptions())
    graphs = OnnxRuntimeGraphs(onnxruntime, engine, "cpu", 0, TINY_SIZE, threading.Lock())
    for count in (2, 2, 1, 2):
        images = images_of(count, rng)
        maps = graphs.call(lambda images=images: graphs.infer(images))  # type: ignore[misc]
        np.testing.assert_array_equal(maps, plain.infer({"images": images})["maps"])


def test_threads_that_outlive_the_main_one_are_served() -> None:
    script = """
import threading, time
import onnxruntime
from gconet.runtime.onnxruntime_graphs import OnnxRuntimeGraphs
graphs = OnnxRuntimeGraphs(onnxruntime, None, "cpu", 0, 32, threading.Lock())
def late():
    threading.main_thread().join()
    print(graphs.call(lambda: "served"))
threading.Thread(target=late).start()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "served\n"


def test_ctrl_c_is_raised_when_nothing_writes_to_the_callers_memory_any_more() -> None:
    graphs = OnnxRuntimeGraphs(onnxruntime, None, "cpu", 0, TINY_SIZE, threading.Lock())
    done = threading.Event()

    def work() -> None:
        _thread.interrupt_main()
        time.sleep(0.05)
        done.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts deaf to it
    try:
        with pytest.raises(KeyboardInterrupt):
            graphs.call(work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.is_set()
