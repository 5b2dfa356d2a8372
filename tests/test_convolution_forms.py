"""The choice of a form for each convolution: what is timed, and what the build makes of it."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, TINY_SIZE
from torch import Tensor, nn

from gconet.bench.flops import count_layers
from gconet.bench.photo_groups import EXAMPLES
from gconet.export import convolution_forms, verified_build, winograd
from gconet.export.convolution_forms import OPENERS, TimedShape, can_choose, time_forms
from gconet.export.inference import InferenceNetwork
from gconet.runtime import open_bundle
from gconet.runtime.cli import main
from gconet.runtime.errors import UsageError
from gconet.runtime.manifest import Manifest
from gconet.train.checkpoint import Checkpoint, save_checkpoint
from gconet.train.model import GCoNet


@pytest.fixture
def many_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight channels count as many."""
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 8)


@pytest.mark.parametrize("target", OPENERS)
@pytest.mark.usefixtures("many_channels")
def test_times_each_shape_once(tiny_network: GCoNet, target: str) -> None:
    steps: list[None] = []
    timed = time_forms(copy.deepcopy(tiny_network), 32, target, lambda: steps.append(None))
    assert {shape.names: (shape.channels, shape.side) for shape in timed} == {
        ("encoder.conv3.conv3_2", "encoder.conv3.conv3_3"): ((8, 8), 8),
        ("encoder.conv4.conv4_1",): ((8, 12), 4),
        ("encoder.conv4.conv4_2", "encoder.conv4.conv4_3"): ((12, 12), 4),
        ("encoder.conv5.conv5_1",): ((12, 16), 2),
        ("encoder.conv5.conv5_2", "encoder.conv5.conv5_3"): ((16, 16), 2),
    }
    assert all(shape.direct_ms > 0 and shape.winograd_ms > 0 for shape in timed)
    assert len(steps) == len(timed)
    assert sorted(name for shape in timed for name in shape.names) == sorted(
        winograd.eligible(InferenceNetwork(tiny_network))
    )


@pytest.mark.usefixtures("many_channels")
def test_a_convolution_is_timed_between_two_of_one_channel(
    tiny_network: GCoNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[Tensor, nn.Module]] = []
    export = convolution_forms._export

    def note(network: nn.Module, images: Any, path: Path) -> Path:
        timed.append((torch.from_numpy(images), network))
        return export(network, images, path)

    monkeypatch.setattr(convolution_forms, "_export", note)
    time_forms(copy.deepcopy(tiny_network), 32, "onnxruntime", lambda: None)
    for images, network in timed:  # what an engine would convert at its borders is small then, in either form
        assert images.shape[1] == network(images).shape[1] == 1
    direct = [network for _, network in timed if isinstance(network[2], nn.Conv2d)]  # type: ignore[index]
    assert len(timed) == 2 * len(direct) == 10


def test_nothing_is_timed_where_channels_are_few(tiny_network: GCoNet) -> None:
    assert time_forms(tiny_network, 32, "openvino", lambda: None) == []


def test_pays_only_where_clearly_faster() -> None:
    assert TimedShape(("a",), (8, 8), 4, direct_ms=10, winograd_ms=9.4).winograd
    assert not TimedShape(("a",), (8, 8), 4, direct_ms=10, winograd_ms=9.6).winograd


def test_where_the_form_is_ours_to_choose() -> None:
    assert can_choose("openvino", "fp32")
    assert not can_choose("openvino", "bf16")  # the transforms would round to 8 bits too
    assert not can_choose("tensorrt", "fp32")


@pytest.fixture
def checkpoint_file(tiny_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def build(checkpoint: Path, out: Path, *more: str) -> dict[str, object]:
    """The manifest of a verified build."""
    words = ["build", "--checkpoint", str(checkpoint), "--max-group", "2", "--out", str(out), "--precision", "fp32"]
    assert main([*words, *more]) == 0
    manifest: dict[str, object] = json.loads((out / "manifest.json").read_text("utf-8"))
    return manifest


@pytest.fixture(scope="module", params=OPENERS)
def winograd_bundle(
    request: pytest.FixtureRequest, tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle with eight convolutions in Winograd's form, of either target."""
    folder = tmp_path_factory.mktemp("winograd")
    save_checkpoint(tiny_checkpoint, folder / "tiny.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "FEWEST_CHANNELS", 8)
        what = ("--target", request.param, "--convolutions", "winograd")
        build(folder / "tiny.safetensors", folder / "b.gconet", *what)
    return folder / "b.gconet"


def test_build_in_winograds_form_keeps_parity(winograd_bundle: Path, tmp_path: Path) -> None:
    manifest = open_bundle(winograd_bundle).manifest
    assert len(manifest.convolutions["winograd"]) == 8
    assert manifest.parity["passed"]
    photos = sorted(map(str, (EXAMPLES / "apple").glob("*.jpg")))[:2]
    assert main(["detect", *photos, "--bundle", str(winograd_bundle), "--out", str(tmp_path / "maps")]) == 0


@pytest.mark.usefixtures("many_channels")
def test_direct_is_direct(checkpoint_file: Path, tmp_path: Path) -> None:
    manifest = build(checkpoint_file, tmp_path / "d.gconet", "--target", "onnxruntime", "--convolutions", "direct")
    assert manifest["convolutions"] == {}


@pytest.mark.usefixtures("many_channels")
def test_auto_takes_what_was_faster(
    checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = [
        TimedShape(("encoder.conv4.conv4_2", "encoder.conv4.conv4_3"), (12, 12), 8, 3.0, 1.5),
        TimedShape(("encoder.conv5.conv5_1",), (12, 16), 4, 1.0, 2.0),
    ]
    monkeypatch.setattr("gconet.export.convolution_forms.time_forms", lambda *_: shapes)
    manifest = build(checkpoint_file, tmp_path / "b.gconet", "--target", "openvino")
    chosen = manifest["convolutions"]
    assert isinstance(chosen, dict)
    assert chosen["winograd"] == ["encoder.conv4.conv4_2", "encoder.conv4.conv4_3"]
    assert [shape["winograd_ms"] for shape in chosen["timed"]] == [1.5, 2.0]
    assert "forms       2 convolutions in Winograd's: 2.0 to 2.0 × as fast here" in capsys.readouterr().out


def test_refused_where_the_engine_chooses(checkpoint_file: Path, tmp_path: Path) -> None:
    words = ["build", "--checkpoint", str(checkpoint_file), "--out", str(tmp_path / "b.gconet")]
    with pytest.raises(UsageError, match="--convolutions winograd is for fp32 engines of openvino and onnxruntime"):
        main([*words, "--target", "openvino", "--precision", "int8", "--convolutions", "winograd"])
    assert not (tmp_path / "b.gconet").exists()


def test_a_profile_tells_winograds_products_from_the_affinity(winograd_bundle: Path, tmp_path: Path) -> None:
    bundle, report = str(winograd_bundle), tmp_path / "p.json"
    words = ["profile", "--bundle", bundle, "--rounds", "2", "--warm-up", "1", "--threads", "1", "--no-roofline"]
    assert main([*words, "--json", str(report)]) == 0
    layers = json.loads(report.read_text("utf-8"))["layers"]
    names = {layer["name"] for layer in layers if layer["kind"] == "winograd"}
    assert names >= set(open_bundle(winograd_bundle).manifest.convolutions["winograd"])
    costs = count_layers(dataclasses.asdict(TINY), TINY_SIZE, 2, "inference")
    affinity = sum(layer["flop"] for layer in layers if layer["kind"] == "affinity")
    assert affinity == sum(cost.flop for cost in costs if cost.name == "affinity")


@pytest.fixture
def outside_in_winograds_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parity as measured, but outside the tolerance in this form."""
    measure = verified_build._measure_parity

    def judge(*details: Any) -> Manifest:
        manifest = measure(*details)
        passed = not manifest.convolutions.get("winograd")
        return dataclasses.replace(manifest, parity={**manifest.parity, "passed": passed})

    monkeypatch.setattr(verified_build, "_measure_parity", judge)


@pytest.mark.usefixtures("many_channels", "outside_in_winograds_form")
def test_auto_goes_back_to_direct_ones_where_parity_fails(
    checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = [TimedShape(("encoder.conv5.conv5_1",), (12, 16), 4, 3.0, 1.0)]
    monkeypatch.setattr("gconet.export.convolution_forms.time_forms", lambda *_: shapes)
    manifest = build(checkpoint_file, tmp_path / "b.gconet", "--target", "openvino")
    assert manifest["convolutions"] == {}
    assert manifest["parity"]["passed"]  # type: ignore[index]
    assert "again with direct ones" in capsys.readouterr().out


@pytest.mark.usefixtures("many_channels", "outside_in_winograds_form")
def test_direct_ones_are_recommended_where_winograds_were_asked_for(
    checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--checkpoint", str(checkpoint_file), "--max-group", "2", "--out", str(tmp_path / "b.gconet")]
    assert main([*words, "--target", "openvino", "--precision", "fp32", "--convolutions", "winograd"]) == 1
    assert "try --convolutions direct, or --allow-parity-failure" in capsys.readouterr().err
    assert not (tmp_path / "b.gconet").exists()
