"""`gconet profile`: every layer of an engine once, under its module's name, with what it did; and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, TINY_MAX_GROUP, TINY_SIZE
from imaginary_sessions import write_bundle

from gconet.bench import layer_profile, profile_layers
from gconet.bench.flops import count_layers, total_flop
from gconet.bench.roofline import Rate, Roofline
from gconet.engines.bundle_writer import describe_files, write_manifest
from gconet.export.inference import InferenceNetwork
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import run
from gconet.train.model import GCoNet

FEW = ("--rounds", 3, "--warm-up", 1, "--threads", 1)
BARE = (*FEW, "--no-roofline")
BundleMaker = Callable[[str, str], Path]


def profile(*arguments: object) -> int:
    try:
        return run(profile_layers.main, [str(argument) for argument in arguments])
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1


def measured(bundle: Path, folder: Path, *arguments: object) -> Any:
    """The JSON of a run."""
    assert profile("--bundle", bundle, *BARE, *arguments, "--json", folder / "p.json") == 0
    return json.loads((folder / "p.json").read_text("utf-8"))


def convolutions(network: GCoNet) -> set[str]:
    """Names of the convolutions that the maps pass through."""
    seen = set()
    inference = InferenceNetwork(network)
    for name, module in inference.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: seen.add(name))
    with torch.inference_mode():
        inference(torch.zeros(2, 3, TINY_SIZE, TINY_SIZE))
    for module in inference.modules():
        module._forward_hooks.clear()
    return seen


@pytest.mark.parametrize(
    ("target", "precision"),
    [("openvino", "fp32"), ("openvino", "int8"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")],
)
def test_every_convolution_is_a_row_under_its_modules_name(
    target: str, precision: str, tiny_bundle: BundleMaker, tiny_network: GCoNet, tmp_path: Path
) -> None:
    document = measured(tiny_bundle(target, precision), tmp_path)
    layers = document["layers"]
    named = [layer["name"] for layer in layers if layer["kind"] == "convolution"]
    assert set(named) == convolutions(tiny_network)
    assert len(set(named)) == len(named)
    assert {layer["kind"] for layer in layers} >= {"convolution", "resize", "pooling", "affinity"}
    assert sum(layer["kind"] == "resize" for layer in layers) == 4
    assert all(layer["kernel"] and layer["node"] and len(layer["samples_ms"]) == 3 for layer in layers)
    assert all(layer["flop"] > 0 for layer in layers if layer["kind"] == "convolution")
    types = {layer["precision"].partition("→")[0] for layer in layers if layer["kind"] == "convolution"}
    assert "u8" in types if precision == "int8" else types == {"fp32"}


def test_openvinos_arithmetic_is_that_of_the_network(tiny_bundle: BundleMaker, tmp_path: Path) -> None:
    document = measured(tiny_bundle("openvino", "fp32"), tmp_path, "--group", 3)
    costs = count_layers(dataclasses.asdict(TINY), TINY_SIZE, 3, "inference")
    # The GAM's output projection is one vector: a product and a sum, no convolution.
    expected = total_flop(costs) - sum(cost.flop for cost in costs if cost.name == "gam output")
    assert sum(layer["flop"] for layer in document["layers"]) == expected


@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
def test_sums_are_those_of_the_layers(target: str, tiny_bundle: BundleMaker, tmp_path: Path) -> None:
    document = measured(tiny_bundle(target, "fp32"), tmp_path)
    layers = document["layers"]
    assert document["sum_ms"] == pytest.approx(sum(layer["ms"] for layer in layers))
    assert sum(document["kinds_ms"].values()) == pytest.approx(document["sum_ms"])
    assert sum(layer["share"] for layer in layers) == pytest.approx(1)
    assert document["overhead"] == pytest.approx(document["profiled"]["p50_ms"] / document["plain"]["p50_ms"] - 1)
    assert len(document["plain"]["samples_ms"]) == len(document["profiled"]["samples_ms"]) == 3
    assert document["group"] == 2
    assert document["environment"]["cpu"]
    assert document["roofline"] == {"not_measured": "--no-roofline was given"}


def test_what_changes_only_layout_or_type_is_told_from_what_computes(tiny_bundle: BundleMaker, tmp_path: Path) -> None:
    layers = measured(tiny_bundle("openvino", "int8"), tmp_path)["layers"]
    for layer in layers:
        if layer["kind"] == "convert":
            assert "→" in layer["precision"]
        if layer["kind"] in ("convert", "reorder"):
            assert layer["flop"] == 0
    assert any(layer["kind"] == "convert" for layer in layers)


def test_the_terminal_and_markdown_tell_the_same_run(
    tiny_bundle: BundleMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Roofline({"fp32": Rate(100.0, "tests")}, copy_gb_per_s=10.0)
    monkeypatch.setattr(layer_profile, "measure_roofline", lambda *_: machine)
    bundle = tiny_bundle("openvino", "fp32")
    files = ("--json", tmp_path / "p.json", "--markdown", tmp_path / "p.md")
    assert profile("--bundle", bundle, *FEW, "--top", 3, *files) == 0
    document = json.loads((tmp_path / "p.json").read_text("utf-8"))
    printed, markdown = capsys.readouterr().out, (tmp_path / "p.md").read_text("utf-8")
    slowest = sorted(document["layers"], key=lambda layer: -layer["ms"])
    lines = printed.splitlines()
    (header,) = [index for index, line in enumerate(lines) if line.startswith("layer ")]
    for line, layer in zip(lines[header + 1 : header + 4], slowest, strict=False):
        assert line.startswith(f"{layer['name']} ")
    assert lines[header + 4].startswith(f"{len(slowest) - 3} more")
    for kind, ms in document["kinds_ms"].items():
        assert f"\n{kind} " in printed
        assert f"| {kind} |" in markdown
        assert f"{ms:.2f}" in markdown
    assert all(f"| {layer['name']} |" in markdown for layer in slowest)
    assert "without profiling" in printed
    assert "without profiling" in markdown
    assert document["roofline"]["rates"]["fp32"]["gflops"] == 100
    assert "Limits in this run: fp32 100 GFLOP/s; copies 10.0 GB/s" in markdown
    assert all(layer["share_of_roofline"] > 0 for layer in slowest if layer["ms"] > 0 and layer["bytes"])
    for text in (markdown, json.dumps(document)):
        assert str(tmp_path) not in text
        assert str(bundle.parent) not in text


def test_a_plan_is_one_line_with_what_to_look_at_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "rtx.gconet", b"a plan")
    assert profile("--bundle", bundle, *BARE) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the layers of a tensorrt plan are not timed; time the whole with `gconet bench`" in line

    account = bundle / "detect.engine.json"
    account.write_text("{}")
    files = describe_files([bundle / "detect.plan", account])
    write_manifest(bundle, dataclasses.replace(open_bundle(bundle).manifest, files=files))
    assert profile("--bundle", bundle, *BARE) == 2
    assert f"see what became of each in {account}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--group", TINY_MAX_GROUP + 1), "lower --group"),
        (("--group", 0), "at least 1"),
        (("--rounds", "many"), "at least 1"),
        (("--top", 0), "at least 1"),
        (("--images", "absent"), "no photo or folder at absent"),
        (("--bundle", "absent.gconet"), "no bundle at absent.gconet"),
        (("--json", "."), "it is a folder, name a file"),
        (("--markdown", "/dev/null/p.md"), "cannot write /dev/null/p.md"),
        (("--peers", "all"), "unrecognized arguments: --peers all"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tiny_bundle: BundleMaker, arguments: tuple[object, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile("--bundle", tiny_bundle("openvino", "fp32"), *BARE, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_by_path_and_without_torch(tiny_bundle: BundleMaker) -> None:
    script = Path(profile_layers.__file__).resolve()
    listing = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert listing.stdout.startswith("usage: gconet profile")
    code = (
        "import sys; from gconet.bench import profile_layers; from gconet.runtime.command_line import run; "
        f"code = run(profile_layers.main, {['--bundle', str(tiny_bundle('openvino', 'fp32')), *map(str, BARE)]}); "
        "print(code, sorted({'torch', 'onnx', 'onnxscript'} & sys.modules.keys()))"
    )
    source = Path(profile_layers.__file__).parents[1].parent
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                            env={"PYTHONPATH": str(source)})  # fmt: skip
    assert result.stdout.splitlines()[-1] == "0 []"
