"""OpenVINO in half precision: a typed IR whose islands stay in float32, run where the CPU has that arithmetic only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from conftest import TINY_SIZE

from gconet.bench.parity_statistics import compare
from gconet.bench.photo_groups import EXAMPLES
from gconet.bench.reference import eager_maps
from gconet.bench.tolerances import TOLERANCES
from gconet.engines import doctor, openvino_target
from gconet.engines.registry import choose_target, get_target
from gconet.engines.target import EngineSpec
from gconet.export import build_engine
from gconet.runtime import detect_command, openvino_session, vnni
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import run
from gconet.runtime.errors import TargetError
from gconet.runtime.openvino_session import OpenVinoSession, missing_arithmetic
from gconet.runtime.preprocess import FloatArray, Photo, Preprocessing, to_input
from gconet.runtime.session import SessionOptions, open_session
from gconet.train.checkpoint import Checkpoint, save_checkpoint
from gconet.train.model import GCoNet

Bundles = Callable[[str, str], Path]

ISLANDS = {"gam.pixel_bias", "gam.output", "decoder.levels.1.side.4.layer"}
RUNS_HERE = get_target("openvino").runs_here("fp16") is None
needs_half = pytest.mark.skipif(not RUNS_HERE, reason="this CPU has no half arithmetic")
needs_none = pytest.mark.skipif(RUNS_HERE, reason="this CPU has half arithmetic")


@pytest.fixture
def images(example_photos: list[Photo]) -> FloatArray:
    """Five example photos as the tiny network takes them."""
    return to_input(example_photos[:5], Preprocessing(TINY_SIZE))


def compiled(bundle: Path, hint: str, images: FloatArray) -> Any:
    """A bundle's IR, compiled for a group by OpenVINO itself."""
    core = ov.Core()
    model = core.read_model(open_bundle(bundle).file("detect.xml"), open_bundle(bundle).file(".bin"))
    model.reshape(list(images.shape))
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})


# The artefact


def test_weights_are_half_but_for_the_islands_and_half_the_size(tiny_bundle: Bundles) -> None:
    bundle = open_bundle(tiny_bundle("openvino", "fp16"))
    model = ov.Core().read_model(bundle.file("detect.xml"), bundle.file(".bin"))
    weights = {
        operation.get_friendly_name(): operation.get_element_type().get_type_name()
        for operation in model.get_ops()
        if operation.get_type_name() == "Constant" and operation.get_friendly_name().endswith((".weight", ".bias"))
    }
    assert set(weights.values()) == {"f16", "f32"}
    assert {name.rpartition(".")[0] for name, type_ in weights.items() if type_ == "f32"} == ISLANDS
    single = open_bundle(tiny_bundle("openvino", "fp32")).file(".bin").stat().st_size
    assert bundle.file(".bin").stat().st_size < 0.6 * single
    outside = {port.get_element_type().get_type_name() for port in (*model.inputs, *model.outputs)}
    assert outside == {"f32"}  # what the runtime gives and takes


def test_it_is_the_same_network(tiny_bundle: Bundles, tiny_network: GCoNet, images: FloatArray) -> None:
    """Computed in float32, only its weights are rounded: nothing was lost on the way to the IR."""
    maps = compiled(tiny_bundle("openvino", "fp16"), "f32", images)({"images": images})["maps"]
    row = compare(eager_maps(tiny_network, images), maps, TOLERANCES["openvino", "fp16"])
    assert row.passed, row
    assert row.mean_abs > 1e-7  # not the fp32 graph under another name


@needs_half
def test_the_plugin_keeps_the_types(tiny_bundle: Bundles, images: FloatArray) -> None:
    hint = openvino_session.HINTS["fp16"]
    layers = [
        (info["layerType"].astype(str), info["runtimePrecision"].astype(str))
        for operation in compiled(tiny_bundle("openvino", "fp16"), hint, images).get_runtime_model().get_ops()
        for info in [operation.get_rt_info()]
    ]
    convolutions = [type_ for kind, type_ in layers if kind == "Convolution"]
    assert convolutions.count("f32") == 2  # the pixel bias and the logits
    assert convolutions.count("f16") == len(convolutions) - 2 > 30
    assert ("Softmax", "f32") in layers


@needs_half
def test_it_runs_and_agrees(tiny_bundle: Bundles, tiny_network: GCoNet, images: FloatArray) -> None:
    maps = open_session(open_bundle(tiny_bundle("openvino", "fp16")), "auto", None).infer({"images": images})["maps"]
    assert compare(eager_maps(tiny_network, images), maps, TOLERANCES["openvino", "fp16"]).passed


def test_the_session_asks_for_the_types_of_the_ir(
    tiny_bundle: Bundles, tiny_network: GCoNet, images: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint f16 would round the islands too; where this CPU cannot do half, the plugin computes in float32."""
    monkeypatch.setattr(openvino_session, "missing_arithmetic", lambda *_: None)
    session = OpenVinoSession(open_bundle(tiny_bundle("openvino", "fp16")), SessionOptions(threads=1))
    maps = session.infer({"images": images})["maps"]
    request = session.infer_request(images.shape)
    assert request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT") == ov.Type.dynamic
    assert np.abs(maps - eager_maps(tiny_network, images)).mean() < 2e-3


# Where the CPU cannot


@pytest.mark.parametrize(
    ("precision", "capabilities", "runs"),
    [
        ("fp16", ["FP32", "FP16", "BF16", "INT8"], True),
        ("fp16", ["FP32", "BF16", "INT8"], False),
        ("bf16", ["FP32", "FP16"], False),
        ("bf16", ["FP32", "BF16"], True),
        ("fp32", ["FP32"], True),
        ("fp8", ["FP32", "FP8"], False),
        ("int8", ["FP32"], False),
    ],
)
def test_what_the_plugin_reports_decides(precision: str, capabilities: list[str], runs: bool) -> None:
    problem = missing_arithmetic(precision, capabilities)
    assert (problem is None) == runs
    assert runs or f"no {precision} arithmetic; build with `gconet build --target openvino" in str(problem)


def test_int8_needs_sums_that_do_not_overflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vnni, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert missing_arithmetic("int8", ["INT8"]) is None  # a system that does not tell
    vnni.CPUINFO.write_text("model name : old\nflags : sse avx2 fma\n")
    assert "no VNNI" in str(missing_arithmetic("int8", ["INT8"]))
    assert missing_arithmetic("fp32", ["FP32"]) is None
    vnni.CPUINFO.write_text("model name : new\nflags : sse avx2 avx_vnni\n")
    assert missing_arithmetic("int8", ["INT8"]) is None
    vnni.CPUINFO.write_text("flags : sse avx2\n")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert missing_arithmetic("int8", ["INT8"]) is None


@needs_none
def test_a_bundle_that_cannot_run_here_is_one_line(
    tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle("openvino", "fp16")
    with pytest.raises(TargetError, match=r"cannot run here: this CPU has no fp16 arithmetic; build with `gconet"):
        open_session(open_bundle(bundle), "auto", None)
    assert run(detect_command.main, [str(EXAMPLES / "apple"), "--bundle", str(bundle), "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no fp16 arithmetic" in line


@needs_none
def test_a_build_says_what_it_could_not_measure_and_measures_the_graph(
    tiny_checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.safetensors")
    out = tmp_path / "half.gconet"
    arguments = ["--checkpoint", str(tmp_path / "tiny.safetensors"), "--target", "openvino", "--precision", "fp16"]
    assert run(build_engine.main, [*arguments, "--max-group", "3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "parity      not measured: this CPU has no fp16 arithmetic" in printed
    assert "% fp16" in printed
    assert "gconet detect" not in printed
    manifest = open_bundle(out).manifest
    assert (manifest.target, manifest.precision) == ("openvino", "fp16")
    assert "no fp16 arithmetic" in manifest.latency["not_measured"]
    assert "no fp16 arithmetic" in manifest.parity["not_measured"]
    graph = manifest.parity["graph"]
    assert graph["passed"]
    assert [row["group"] for row in graph["rows"]] == [1, 2, 5]
    assert 0 < graph["rows"][0]["mean_abs"] < 2e-3


def test_what_the_plugin_lowers_itself_has_no_typed_graph_to_measure(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_target, "_capabilities", lambda _: ["FP32"])  # a CPU of ten years ago
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.safetensors")
    out = tmp_path / "bf16.gconet"
    arguments = ["--checkpoint", str(tmp_path / "tiny.safetensors"), "--target", "openvino", "--precision", "bf16"]
    assert run(build_engine.main, [*arguments, "--out", str(out)]) == 0
    manifest = open_bundle(out).manifest
    assert manifest.parity.keys() == manifest.latency.keys() == {"not_measured"}
    assert "no bf16 arithmetic" in manifest.parity["not_measured"]


@needs_none
def test_auto_passes_it_over(monkeypatch: pytest.MonkeyPatch) -> None:
    target = get_target("openvino")
    assert target.preferred_precision() != "fp16"
    assert "no fp16 arithmetic" in str(target.why_not_here(EngineSpec("fp16", 4)))
    assert target.runs_here() is None
    monkeypatch.setattr("gconet.engines.registry.AUTO_ORDER", ("openvino", "onnxruntime"))
    with pytest.raises(TargetError, match=r"in fp16 .*openvino not: this CPU has no fp16 .*onnxruntime not: half"):
        choose_target("fp16")


@needs_none
def test_doctor_names_the_precision_that_does_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    (report,) = [report for report in doctor.examine_targets() if report.target == "openvino"]
    assert report.run_problem is None
    assert "no fp16 arithmetic" in report.precision_problems["fp16"]
    assert "fp32" not in report.precision_problems
    assert doctor.main([]) == 0
    assert "run    fp16 not: this CPU has no fp16 arithmetic" in capsys.readouterr().out
