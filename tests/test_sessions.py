"""Sessions: devices, binding of input and output, and one session used from eight threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import TINY_SIZE

import gconet.runtime as gr
from gconet.runtime.onnxruntime_session import OnnxRuntimeSession
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import DEVICES, SESSIONS, SessionOptions, open_session, why_not_runnable
from gconet.train.model import GCoNet

BundleMaker = Callable[[str, str], Path]
CPU_TARGETS = [target for target, kinds in DEVICES.items() if kinds[0] == "cpu"]


def images_of(count: int, rng: np.random.Generator) -> FloatArray:
    return rng.standard_normal((count, 3, TINY_SIZE, TINY_SIZE), np.float32)


# Threads


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_eight_threads_with_groups_of_different_sizes_get_their_own_maps(
    target: str, tiny_bundle: BundleMaker, tiny_network: GCoNet, rng: np.random.Generator
) -> None:
    session = open_session(gr.open_bundle(tiny_bundle(target, "fp32")), "cpu", 1)
    groups = [images_of(count, rng) for count in (1, 2, 3, 4, 5) for _ in range(4)]  # more sizes than stay compiled
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda images: session.infer({"images": images})["maps"], groups))
    for images, maps in zip(groups, answers, strict=True):
        with torch.inference_mode():
            expected = tiny_network(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(maps, session.infer({"images": images})["maps"])
    assert max(np.ptp(maps) for maps in answers) > 0.01  # the comparison means something


# ONNX Runtime's binding of input and output


@pytest.fixture
def session(tiny_bundle: BundleMaker) -> OnnxRuntimeSession:
    """ONNX Runtime on the CPU."""
    bundle = gr.open_bundle(tiny_bundle("onnxruntime", "fp32"))
    return OnnxRuntimeSession(bundle, SessionOptions(threads=1))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_bound_memory_gives_what_a_plain_run_gives(
    count: int, session: OnnxRuntimeSession, tiny_bundle: BundleMaker, rng: np.random.Generator
) -> None:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    path = gr.open_bundle(tiny_bundle("onnxruntime", "fp32")).file("detect.onnx")
    plain = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    images = images_of(count, rng)
    maps = session.infer({"images": images})["maps"]
    np.testing.assert_array_equal(maps, plain.run(["maps"], {"images": images})[0])
    strided = np.repeat(images, 2, axis=0)[::2]
    np.testing.assert_array_equal(session.infer({"images": strided})["maps"], maps)


def test_input_and_output_are_bound_where_they_lie(
    session: OnnxRuntimeSession, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: dict[str, Any] = {}
    original = session._session.io_binding

    class Spy:
        def __init__(self) -> None:
            self._binding = original()

        def bind_cpu_input(self, name: str, array: FloatArray) -> None:
            bound[name] = array.ctypes.data
            self._binding.bind_cpu_input(name, array)

        def bind_output(self, name: str, *arguments: Any) -> None:
            bound[name] = arguments[-1]
            self._binding.bind_output(name, *arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._binding, name)

    monkeypatch.setattr(session._session, "io_binding", Spy)
    images = images_of(2, rng)
    maps = session.infer({"images": images})["maps"]
    assert bound == {"images": images.ctypes.data, "maps": maps.ctypes.data}
    assert maps.flags.owndata


def test_maps_stay_the_callers(session: OnnxRuntimeSession, rng: np.random.Generator) -> None:
    first = session.infer({"images": images_of(2, rng)})["maps"]
    kept = first.copy()
    session.infer({"images": images_of(2, rng)})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 3, 64, 64)), np.zeros((2, 4, 64, 64), np.float32), np.zeros((2, 3, 64), np.float32)],
    ids=["double", "channels", "rank"],
)
def test_input_that_does_not_fit_is_a_target_error(images: Any, session: OnnxRuntimeSession) -> None:
    with pytest.raises(gr.TargetError, match=r"^ONNX Runtime cannot run a group of 2 photos: \S"):
        session.infer({"images": images})


# Devices


@pytest.mark.parametrize(
    ("target", "device", "complaint"),
    [
        ("openvino", "cuda", r"target openvino runs on device auto or cpu, not 'cuda'; for a GPU, build with `gconet"),
        ("openvino", "cpu:0", "not 'cpu:0'"),
        ("onnxruntime", "gpu", "runs on device auto, cpu, cuda or cuda:N, not 'gpu'"),
        ("onnxruntime", "cuda:", "not 'cuda:'"),
        ("onnxruntime", "cuda:-1", "not 'cuda:-1'"),
        ("onnxruntime", "CPU", "not 'CPU'"),
        ("onnxruntime", "", "not ''"),
    ],
)
def test_a_device_the_target_does_not_run_on_is_a_target_error(
    target: str, device: str, complaint: str, tiny_bundle: BundleMaker
) -> None:
    with pytest.raises(gr.TargetError, match=complaint):
        gr.load(tiny_bundle(target, "fp32"), device=device)


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_auto_and_cpu_are_the_same_on_cpu_targets(
    target: str, tiny_bundle: BundleMaker, rng: np.random.Generator
) -> None:
    images = images_of(2, rng)
    auto, cpu = (gr.load(tiny_bundle(target, "fp32"), device, 1).session.infer({"images": images})["maps"]
                 for device in ("auto", "cpu"))  # fmt: skip
    np.testing.assert_array_equal(auto, cpu)
    assert why_not_runnable(target) is None


@pytest.mark.parametrize(
    ("device", "expected"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:12", 12)]
)
def test_the_number_of_a_gpu_reaches_its_session(
    device: str, expected: int, tiny_bundle: BundleMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SessionOptions] = []
    monkeypatch.setattr(
        "gconet.runtime.tensorrt_session.TensorRtSession",
        lambda bundle, options: seen.append(options) or SimpleNamespace(max_group=None),  # noqa: ARG005
    )
    bundle = gr.open_bundle(tiny_bundle("openvino", "fp32"))
    vars(bundle.manifest)["target"] = "tensorrt"
    open_session(bundle, device, 3, cuda_graphs=False)
    assert seen == [SessionOptions("cuda", expected, 3, cuda_graphs=False)]


def test_every_session_says_where_it_runs() -> None:
    assert DEVICES.keys() == SESSIONS.keys()


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_arrays_on_a_gpu_are_no_input_for_an_engine_on_the_cpu(target: str, tiny_bundle: BundleMaker) -> None:
    detector = gr.load(tiny_bundle(target, "fp32"))
    with pytest.raises(gr.UsageError, match=r"runs on the CPU: .*(--target tensorrt|device='cuda')"):
        detector.detect_on_device(np.zeros((2, 3, TINY_SIZE, TINY_SIZE), np.float32))


def test_openvino_starts_no_process_and_reports_nothing(tiny_bundle: BundleMaker) -> None:
    """Its import would, by a package of its own, in each process anew."""
    code = (
        "import sys, gconet.runtime as gr\n"
        f"gr.load({str(tiny_bundle('openvino', 'fp32'))!r})\n"
        "print(*(name for name in sys.modules if 'telemetry' in name))\n"
        "print('multiprocessing' in sys.modules, 'openvino' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CI": "true"}  # where it is not sent either
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    reporters, others = done.stdout.splitlines()
    assert not [name for name in reporters.split() if name.partition(".")[0] == "openvino_telemetry"]
    assert others == "False True"


def test_loading_a_session_imports_no_framework() -> None:
    code = (
        "import sys, gconet.runtime.tensorrt_session, gconet.runtime.onnxruntime_session, "
        "gconet.runtime.onnxruntime_providers, gconet.runtime.openvino_session; print(*sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {"torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "cuda"}
    assert not heavy & loaded
