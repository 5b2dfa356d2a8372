"""ONNX Runtime's providers: which are asked for, what is told when one is missing, and arrays on the GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import TINY_MAX_GROUP, TINY_SIZE
from fake_cuda import FakeArray, FakeDriver
from fake_tensorrt import fake_network

import gconet.runtime as gr
from gconet.runtime import cuda, vnni
from gconet.runtime.onnxruntime_providers import captures_graphs, create_session
from gconet.runtime.session import SessionOptions, open_session

BundleMaker = Callable[[str, str], Path]


class ImaginarySettings(SimpleNamespace):
    """Settings of a session."""

    def add_session_config_entry(self, name: str, value: str) -> None:
        vars(self)[name] = value


class ImaginaryOrt:
    """ONNX Runtime for GPUs, as far as sessions use it.

    `started` is what it goes on with, whatever was asked for; `captures`, whether it can capture the bundle's graph.
    """

    __version__ = "1.99.0"
    SessionOptions = ImaginarySettings

    def __init__(
        self, driver: FakeDriver | None = None, started: str = "", error: str = "", captures: bool = False
    ) -> None:
        self.driver, self.started, self.error, self.captures = driver, started, error, captures
        self.asked_for: list[Any] = []
        self.without: list[str] | None = None
        self.settings: Any = None

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        if self.started:
            print("\nFailed to load libcudnn.so.9: no such file\nPlease follow the instructions")

    def InferenceSession(  # noqa: N802 (its name)
        self, _: Path, settings: Any, providers: list[Any], enable_fallback: int, disabled_optimizers: list[str] | None
    ) -> Any:
        assert enable_fallback == 0
        self.settings, self.without = settings, disabled_optimizers
        if self.error:
            raise RuntimeError(self.error)
        self.asked_for = providers
        options = dict(provider for provider in providers if not isinstance(provider, str))
        if not self.captures and options.get("CUDAExecutionProvider", {}).get("enable_cuda_graph") == "1":
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        names = names[names.index(self.started) :] if self.started else names
        return SimpleNamespace(
            get_providers=lambda: names,
            get_provider_options=lambda: options,
            io_binding=dict,
            run_with_iobinding=self.run,
        )

    def run(self, binding: Any, options: Any) -> None:
        assert self.driver is not None
        assert options is None
        for stream in self.driver.streams.values():
            assert not stream.queue  # ONNX Runtime waits for no stream but its own
        _, device, kind, shape, pointer = binding["images"]
        maps = binding["maps"]
        assert (device, kind) == (0, np.float32)
        self.driver.tensor(maps[-1], maps[-2])[...] = fake_network(self.driver.tensor(pointer, shape))


def test_a_gpu_without_its_provider_is_told_with_the_commands_that_mend_it(tiny_bundle: BundleMaker) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed, nothing is missing")
    for provider in ("cuda", "tensorrt"):
        with pytest.raises(gr.TargetError, match=r"has no \w+ExecutionProvider: pip uninstall -y onnxruntime .*-gpu"):
            gr.load(tiny_bundle("onnxruntime", "fp32"), device="cuda", provider=provider)
    with pytest.raises(gr.UsageError, match="provider is cuda or tensorrt, not 'rocm'"):
        gr.load(tiny_bundle("onnxruntime", "fp32"), provider="rocm")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_falling_back_to_another_provider_is_an_error(
    provider: Any, tiny_bundle: BundleMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = gr.open_bundle(tiny_bundle("onnxruntime", "fp32"))
    ort: Any = ImaginaryOrt(started="CPUExecutionProvider")
    with pytest.raises(gr.TargetError, match=r"on GPU 1: .*did not start \(Failed to load libcudnn.*nvidia-smi") as e:
        create_session(ort, bundle, SessionOptions("cuda", 1, provider=provider))
    assert "onnxruntime-gpu[cuda,cudnn]==1.26.*" in str(e.value)
    assert "\n" not in str(e.value)
    assert capsys.readouterr().out == ""


def test_a_provider_that_fails_and_a_graph_that_does_not_load_are_told_apart(tiny_bundle: BundleMaker) -> None:
    bundle = gr.open_bundle(tiny_bundle("onnxruntime", "fp32"))
    for error, kind in [("CUDA failure 100: no device", gr.TargetError), ("Protobuf parsing failed", gr.BundleError)]:
        with pytest.raises(kind, match=error):
            create_session(ImaginaryOrt(error=error), bundle, SessionOptions("cuda"))  # type: ignore[arg-type]


def test_providers_are_asked_for_by_gpu_and_by_group(tiny_bundle: BundleMaker) -> None:
    bundle = gr.open_bundle(tiny_bundle("onnxruntime", "fp32"))
    ort: Any = ImaginaryOrt()
    facts = {"device_id": "1", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": "0"}
    cuda_options = ("CUDAExecutionProvider", facts | {"enable_cuda_graph": "0"})
    create_session(ort, bundle, SessionOptions("cuda", 1, cuda_graphs=False))
    assert ort.asked_for == [cuda_options, "CPUExecutionProvider"]
    create_session(ort, bundle, SessionOptions("cuda", 1, provider="tensorrt"))
    (name, options), *others = ort.asked_for
    assert name == "TensorrtExecutionProvider"
    assert options == {
        "device_id": "1",
        "trt_profile_min_shapes": "images:1x3x64x64",
        "trt_profile_opt_shapes": f"images:{TINY_MAX_GROUP}x3x64x64",
        "trt_profile_max_shapes": f"images:{TINY_MAX_GROUP}x3x64x64",
    }
    assert others == [cuda_options, "CPUExecutionProvider"]
    create_session(ort, bundle, SessionOptions("cpu", provider="tensorrt"))
    assert ort.asked_for == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("cpuinfo", "safe"),
    [("flags : sse avx2 avx512_vnni\n", False), ("flags : sse avx2\n", True), (None, True)],
    ids=["VNNI", "none", "not told"],
)
def test_sums_of_bytes_are_kept_from_saturating_only_where_they_might(
    cpuinfo: str | None, safe: bool, tiny_bundle: BundleMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vnni, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(vnni.platform, "machine", lambda: "x86_64")
    if cpuinfo:
        vnni.CPUINFO.write_text(cpuinfo)
    ort: Any = ImaginaryOrt()
    create_session(ort, gr.open_bundle(tiny_bundle("onnxruntime", "int8")), SessionOptions("cpu"))
    assert ("session.x64quantprecision" in vars(ort.settings)) == safe


def test_half_precision_is_laid_out_channels_last(tiny_bundle: BundleMaker) -> None:
    ort: Any = ImaginaryOrt()
    bundle = gr.open_bundle(tiny_bundle("onnxruntime", "fp16"))
    create_session(ort, bundle, SessionOptions("cuda"))
    assert ort.asked_for[0][1]["prefer_nhwc"] == "1"
    assert ort.without == ["ConvAddFusion"]  # biases stay sums of their own
    create_session(ort, bundle, SessionOptions("cuda", provider="tensorrt"))
    assert ort.asked_for[1][1]["prefer_nhwc"] == "0"
    assert not ort.without


def test_graphs_are_captured_of_detect_where_they_can_be(
    tiny_bundle: BundleMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = gr.open_bundle(tiny_bundle("onnxruntime", "fp32"))
    ort: Any = ImaginaryOrt(captures=True)
    assert captures_graphs(create_session(ort, bundle, SessionOptions("cuda")))
    plain = [
        ("detect", SessionOptions("cuda", cuda_graphs=False)),
        ("encode", SessionOptions("cuda")),
        ("detect", SessionOptions("cuda", provider="tensorrt")),
        ("detect", SessionOptions("cuda", layer_times=tmp_path)),
        ("detect", SessionOptions("cpu")),
    ]
    for graph, options in plain:
        assert not captures_graphs(create_session(ort, bundle, options, graph))
    caplog.set_level("INFO", "gconet")
    assert not captures_graphs(create_session(ImaginaryOrt(), bundle, SessionOptions("cuda")))  # type: ignore[arg-type]
    (record,) = caplog.records
    assert "runs without CUDA graphs" in record.message


class Binding(dict[str, Any]):
    """What is bound, by name."""

    def bind_input(self, name: str, *facts: Any) -> None:
        self[name] = facts

    bind_output = bind_input


def test_arrays_on_the_gpu_are_bound_where_they_lie(
    tiny_bundle: BundleMaker, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = FakeDriver()
    monkeypatch.setattr(cuda, "load_driver", lambda: driver)
    ort = ImaginaryOrt(driver)
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)  # type: ignore[arg-type]
    session: Any = open_session(gr.open_bundle(tiny_bundle("onnxruntime", "fp32")), "cuda", None)
    assert session.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
    session._session.io_binding = Binding
    producer = cuda.Stream(cuda.Device(0))
    values = rng.standard_normal((2, 3, TINY_SIZE, TINY_SIZE), np.float32)
    images = FakeArray(driver, np.zeros_like(values), stream=producer.address)
    driver.streams[producer.address].append(lambda: np.copyto(driver.tensor(images.pointer, values.shape), values))
    maps = FakeArray(driver, np.zeros((2, 1, TINY_SIZE, TINY_SIZE), np.float32))

    bound = session.infer_device({"images": images}, {"maps": maps})["maps"]
    assert bound.pointer == maps.pointer
    np.testing.assert_array_equal(maps.read(), fake_network(values))
    np.testing.assert_array_equal(session.infer_device({"images": images})["maps"].numpy(), fake_network(values))
    with pytest.raises(gr.UsageError, match="maps: its shape is"):
        session.infer_device({"images": images}, {"maps": images})
    within = FakeArray(driver, np.zeros((2, 1, TINY_SIZE, TINY_SIZE), np.float32), data=(images.pointer, False))
    with pytest.raises(gr.UsageError, match="maps: it overlaps images in memory"):
        session.infer_device({"images": images}, {"maps": within})
    for shape in [(4,), (2, 3), (0, 3, TINY_SIZE, TINY_SIZE), (2, 3, TINY_SIZE, TINY_SIZE // 2)]:
        wrong = FakeArray(driver, np.zeros((1, 3, TINY_SIZE, TINY_SIZE), np.float32), shape=shape)
        with pytest.raises(gr.UsageError, match=r"images: its shape is .*, it must be \(N, 3, 64, 64\)"):
            session.infer_device({"images": wrong})
