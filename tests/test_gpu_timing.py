"""Timing by a GPU's own clock, on an imaginary GPU; on a real one: test_gpu_sessions.py."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from fake_cuda import FakeDriver
from fake_tensorrt import VERSION, fake_plan, fake_tensorrt

from gconet.bench import latency
from gconet.bench.contenders import bundle_contender, peers_device
from gconet.bench.gpu_timing import time_gpu
from gconet.bench.timing import WARM_UP_ROUNDS
from gconet.engines.bundle_writer import describe_files, write_manifest
from gconet.runtime import cuda, tensorrt_engine
from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.command_line import run
from gconet.runtime.cuda import Device, Event, Stream
from gconet.runtime.errors import TargetError
from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import Preprocessing
from gconet.runtime.session import DeviceSession, open_session

SIZE = 32
ROUNDS = 5


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """An imaginary GPU in place of what this machine has, with the TensorRT that runs on it."""
    fake = FakeDriver()
    monkeypatch.setattr(cuda, "load_driver", lambda: fake)
    monkeypatch.setattr(tensorrt_engine, "load_tensorrt", lambda _: fake_tensorrt(fake))
    return fake


@pytest.fixture
def bundle(driver: FakeDriver, tmp_path: Path) -> Bundle:  # noqa: ARG001 (must be there first)
    folder = tmp_path / "plan.gconet"
    folder.mkdir()
    (folder / "detect.plan").write_bytes(fake_plan(SIZE, [(1, 2, 4)]))
    manifest = Manifest(
        target="tensorrt",
        precision="fp16",
        target_version=VERSION,
        preprocessing=Preprocessing(SIZE),
        max_group=4,
        files=describe_files([folder / "detect.plan"]),
        architecture=dataclasses.asdict(TINY),
        checkpoint={},
        opset=18,
        created="2026-01-01T00:00:00+00:00",
    )
    write_manifest(folder, manifest)
    return open_bundle(folder)


@pytest.mark.usefixtures("driver")
def test_a_timed_event_knows_when_it_was_reached() -> None:
    device = Device(0)
    stream, first, second = Stream(device), Event(device, timed=True), Event(device, timed=True)
    first.record(stream.address)
    second.record(stream.address)
    with pytest.raises(TargetError):
        second.elapsed_ms(first)  # not there yet
    second.synchronize()
    assert second.elapsed_ms(first) >= 0
    assert first.elapsed_ms(second) == -second.elapsed_ms(first)


def test_copies_and_computation_are_timed_apart_with_graphs_and_without(driver: FakeDriver, bundle: Bundle) -> None:
    graphs, plain = (open_session(bundle, "auto", None, cuda_graphs=switch) for switch in (True, False))
    assert isinstance(graphs, DeviceSession)
    assert isinstance(plain, DeviceSession)
    before = driver.calls.copy()
    images = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE), np.float32)
    timing = time_gpu(Device(0), graphs, plain, images, ROUNDS)
    calls = driver.calls - before
    assert all(math.isfinite(value) and value >= 0 for value in dataclasses.astuple(timing))
    samples = WARM_UP_ROUNDS + ROUNDS
    assert calls["cuMemcpyHtoDAsync"] == calls["cuMemcpyDtoHAsync"] == samples
    assert calls["cuEventElapsedTime"] == 4 * samples  # two copies, two sessions
    assert calls["cuStreamBeginCapture"] == 1  # of the session that makes graphs
    assert calls["cuGraphLaunch"] == samples  # one plain call comes before them


def test_nothing_of_it_is_left_on_the_gpu(driver: FakeDriver, bundle: Bundle) -> None:
    graphs, plain = (open_session(bundle, "auto", None, cuda_graphs=switch) for switch in (True, False))
    assert isinstance(graphs, DeviceSession)
    assert isinstance(plain, DeviceSession)
    images = np.zeros((1, 3, SIZE, SIZE), np.float32)
    time_gpu(Device(0), graphs, plain, images, 1)
    held = len(driver.memory), len(driver.pinned), len(driver.events)
    time_gpu(Device(0), graphs, plain, images, 1)
    assert (len(driver.memory), len(driver.pinned), len(driver.events)) == held


def test_a_run_on_a_gpu_reports_what_its_clock_says(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert peers_device([bundle]) == "cuda"
    assert bundle_contender(bundle, None).session is not None
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    report = tmp_path / "l.json"
    arguments = ["--bundle", str(bundle.folder), "--no-eager", "--no-parity", "--rounds", "2", "--warm-up", "1"]
    assert run(latency.main, [*arguments, "--peers", "openvino-fp32", "--json", str(report)]) == 0
    document = json.loads(report.read_text("utf-8"))
    (row,) = document["rows"]
    assert row["gpu"]["compute_ms"] == row["phases"]["compute_ms"]
    assert row["gpu"]["h2d_ms"] == row["phases"]["h2d_ms"]
    assert row["gpu"]["enqueue_ms"] > 0
    assert row["projection"] == {"not_measured": "only for engines on a GPU whose limits were measured"}
    assert "PyTorch with CUDA" in document["roofline"]["not_measured"]
    assert "run on a GPU" in document["left_out"]["plain OpenVINO fp32"]
