"""The build: a bundle gets its name when parity and latency were measured, and nothing is left when it is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import require_tensorrt_rtx

from gconet.bench import parity, tolerances
from gconet.bench.tolerances import Tolerance
from gconet.engines.registry import get_target
from gconet.export import build_engine, verified_build
from gconet.runtime import load, open_bundle
from gconet.runtime.command_line import run
from gconet.runtime.preprocess import Photo
from gconet.train.checkpoint import Checkpoint, save_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]
IMPOSSIBLE = Tolerance(0.0, 0.0, 1.0, "tests")


@pytest.fixture
def build(tiny_checkpoint: Checkpoint, tmp_path: Path) -> Callable[..., int]:
    """Run the command on the tiny checkpoint; the bundle goes to `out/tiny.gconet`."""
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.safetensors")

    def call(*arguments: str) -> int:
        common = ["--checkpoint", str(tmp_path / "tiny.safetensors"), "--max-group", "3"]
        return run(build_engine.main, [*common, "--out", str(tmp_path / "out" / "tiny.gconet"), *arguments])

    return call


def test_a_build_is_verified_and_can_be_checked_again(
    build: Callable[..., int], tmp_path: Path, example_photos: list[Photo], capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("--target", "onnxruntime") == 0
    out = tmp_path / "out" / "tiny.gconet"
    manifest = open_bundle(out).manifest
    assert (manifest.target, manifest.precision, manifest.max_group) == ("onnxruntime", "fp32", 3)
    assert manifest.preprocessing.size == 64
    assert manifest.parity["passed"]
    assert [row["group"] for row in manifest.parity["rows"]] == [1, 2, 3]
    assert [row["target"] for row in manifest.latency["rows"]] == ["onnxruntime", "pytorch"]
    assert len(load(out).detect(example_photos[:2])) == 2
    assert [path.name for path in out.parent.iterdir()] == ["tiny.gconet"]
    assert "the demo's weights" not in capsys.readouterr().out

    checkpoint = str(tmp_path / "tiny.safetensors")
    report = tmp_path / "parity.json"
    assert run(parity.main, ["--bundle", str(out), "--checkpoint", checkpoint, "--json", str(report)]) == 0
    assert json.loads(report.read_text())["rows"][0]["max_abs"] == manifest.parity["rows"][0]["max_abs"]


def test_an_engine_outside_the_tolerance_is_not_published(
    build: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(tolerances.TOLERANCES, ("onnxruntime", "fp32"), IMPOSSIBLE)  # type: ignore[misc]
    assert build("--target", "onnxruntime") == 1
    assert list((tmp_path / "out").iterdir()) == []
    assert "outside the tolerance" in capsys.readouterr().err


def test_an_engine_outside_the_tolerance_is_published_when_that_is_allowed(
    build: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(tolerances.TOLERANCES, ("onnxruntime", "fp32"), IMPOSSIBLE)  # type: ignore[misc]
    assert build("--target", "onnxruntime", "--allow-parity-failure") == 0
    manifest = open_bundle(tmp_path / "out" / "tiny.gconet").manifest
    assert (manifest.parity["passed"], manifest.parity["allowed"]) == (False, True)
    assert manifest.latency["rows"]
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gconet: ")]
    assert "outside the tolerance" in warning


def test_what_passes_is_not_marked_as_allowed(build: Callable[..., int], tmp_path: Path) -> None:
    assert build("--target", "onnxruntime", "--allow-parity-failure") == 0
    parity = open_bundle(tmp_path / "out" / "tiny.gconet").manifest.parity
    assert parity["passed"]
    assert "allowed" not in parity


def test_auto_precision_goes_on_to_fp32_and_says_so(
    build: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if get_target("openvino").preferred_precision() != "bf16":
        pytest.skip("this CPU has no bf16 instructions")
    monkeypatch.setitem(tolerances.TOLERANCES, ("openvino", "bf16"), IMPOSSIBLE)  # type: ignore[misc]
    assert build() == 0
    manifest = open_bundle(tmp_path / "out" / "tiny.gconet").manifest
    assert (manifest.target, manifest.precision) == ("openvino", "fp32")
    assert "bf16 is outside the tolerance" in capsys.readouterr().out


def test_a_failed_rebuild_keeps_the_earlier_bundle(
    build: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build("--target", "onnxruntime") == 0
    out = tmp_path / "out" / "tiny.gconet"
    before = (out / "manifest.json").read_bytes()
    monkeypatch.setattr(verified_build, "measure_latency", _interrupt)
    assert build("--target", "onnxruntime") == 130
    assert (out / "manifest.json").read_bytes() == before
    open_bundle(out)
    assert [path.name for path in out.parent.iterdir()] == ["tiny.gconet"]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_plan_is_built_but_not_claimed_to_be_measured(
    build: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_tensorrt_rtx()
    assert build("--target", "tensorrt-rtx", "--compute-capability", "7.5", "--compute-capability", "8.9") == 0
    manifest = open_bundle(tmp_path / "out" / "tiny.gconet").manifest
    assert (manifest.precision, manifest.compute_capabilities) == ("fp16", ("7.5", "8.9"))
    assert "not_measured" in manifest.parity
    assert "not_measured" in manifest.latency
    graph = manifest.parity["graph"]  # what the CPU can tell of it
    assert graph["passed"]
    assert [row["group"] for row in graph["rows"]] == [1, 2, 5]
    assert 0 < graph["rows"][0]["mean_abs"] < 2e-3
    assert "gconet detect" not in capsys.readouterr().out


def test_a_plan_whose_graph_is_outside_the_tolerance_is_not_published(
    build: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_tensorrt_rtx()
    monkeypatch.setitem(tolerances.TOLERANCES, ("pytorch", "fp16"), IMPOSSIBLE)  # type: ignore[misc]
    assert build("--target", "tensorrt-rtx") == 1
    assert list((tmp_path / "out").iterdir()) == []
    assert "in fp16 the graph is outside the tolerance" in capsys.readouterr().err
    assert build("--target", "tensorrt-rtx", "--allow-parity-failure") == 0
    graph = open_bundle(tmp_path / "out" / "tiny.gconet").manifest.parity["graph"]
    assert (graph["passed"], graph["allowed"]) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "abacus"], "abacus"),
        (["--precision", "fp8"], "fp8"),
        (["--target", "onnxruntime", "--precision", "bf16"], "builds fp32, fp16, int8"),
        (["--calibration", "absent"], "no photo or folder at absent"),
        (["--precision", "int8", "--calibration", str(REPOSITORY / "export")], "no photos in"),
        (["--max-group", "0"], "at least 1"),
        (["--max-group", "many"], "at least 1"),
        (["--size", "100"], "multiple of 16"),
        (["--size", "zero"], "zero"),
        (["--target", "tensorrt-rtx", "--compute-capability", "6.1"], "6.1"),
        (["--target", "onnxruntime", "--compute-capability", "8.9"], "leave it out"),
        (["--checkpoint", "absent.pth"], "absent.pth"),
        (["--checkpoint", __file__], "not a PyTorch checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    build: Callable[..., int], tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = build(*arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_no_bundle_is_never_replaced(
    build: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = tmp_path / "out" / "tiny.gconet" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    assert build("--target", "onnxruntime") == 2
    assert "is not a bundle" in capsys.readouterr().err
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize("script", ["export/build_engine.py", "bench/latency.py", "bench/parity.py"])
def test_scripts_run_by_path_from_anywhere(script: str, tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / script), "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: ")
