"""The sensitivity sweep: what it measures is right, its order is by harm, and its report is complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_SIZE
from shapes import make_data

from gconet.bench.reference import eager_maps
from gconet.engines.registry import get_target
from gconet.export import sensitivity
from gconet.export.sensitivity_judge import Judge, Judgement, read_judged_groups
from gconet.export.sensitivity_report import layer_table
from gconet.export.sensitivity_sweep import LayerRow
from gconet.runtime.command_line import run
from gconet.runtime.preprocess import FloatArray, Preprocessing
from gconet.train.checkpoint import Checkpoint, save_checkpoint
from gconet.train.model import GCoNet

HEAD = "decoder.levels.1.side.*"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups of four photos with truths."""
    return make_data(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def int8_runs() -> None:
    """Skips where OpenVINO's INT8 cannot be relied on."""
    if problem := get_target("openvino").runs_here("int8"):
        pytest.skip(problem)


@pytest.fixture
def sweep(tiny_checkpoint: Checkpoint, tmp_path: Path, data: Path) -> Callable[..., int]:
    """Run the command on the tiny checkpoint and two photos a group."""
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.safetensors")

    def call(*arguments: str) -> int:
        common = ["--checkpoint", str(tmp_path / "tiny.safetensors"), "--photos", "2", "--rounds", "1"]
        return run(sensitivity.main, [*common, "--images", str(data / "images"), *arguments])

    return call


# The judge


def test_maps_of_the_network_itself_are_perfect(tiny_network: GCoNet, data: Path) -> None:
    groups = read_judged_groups(data / "images", data / "gts", 2, Preprocessing(TINY_SIZE))
    assert [len(group.images) for group in groups] == [2, 2, 2]
    found = Judge(tiny_network, groups).judge(lambda images: eager_maps(tiny_network, images))
    assert found == Judgement(1.0, 1.0, 0.0, 0.0, 0.0)


def test_agreement_is_counted_group_by_group(tiny_network: GCoNet, data: Path) -> None:
    groups = read_judged_groups(data / "images", None, 4, Preprocessing(TINY_SIZE))
    emptied = groups[1].images
    exact = [eager_maps(tiny_network, group.images) for group in groups]
    assert all((maps >= 0.5).any() for maps in exact)

    def infer(images: FloatArray) -> FloatArray:
        maps = eager_maps(tiny_network, images)
        return np.zeros_like(maps) if images is emptied else maps

    found = Judge(tiny_network, groups).judge(infer)
    assert found.mask_iou == pytest.approx(2 / 3)
    assert found.worst_iou == 0
    assert found.mean_abs == pytest.approx(exact[1].mean() / 3, rel=1e-5)
    assert (found.delta_s, found.delta_mae) == (None, None)


def test_change_of_scores_is_engine_minus_network(tiny_network: GCoNet, data: Path) -> None:
    """Maps of 0 have as mean absolute error the share of the object."""
    groups = read_judged_groups(data / "images", data / "gts", 2, Preprocessing(TINY_SIZE))
    judge = Judge(tiny_network, groups)
    black = judge.judge(lambda images: np.zeros((len(images), 1, TINY_SIZE, TINY_SIZE), np.float32))
    white = judge.judge(lambda images: np.ones((len(images), 1, TINY_SIZE, TINY_SIZE), np.float32))
    assert black.delta_mae is not None
    assert white.delta_mae is not None
    share = float(np.mean([(truth > 127).mean() for group in groups for truth in group.truths]))
    assert white.delta_mae - black.delta_mae == pytest.approx(1 - 2 * share, abs=1e-6)


def test_harm_is_per_operation() -> None:
    exact = Judgement(1.0, 1.0, 0.0)
    small = LayerRow("small", 0.01, Judgement(0.99, 0.9, 0.1), exact)
    large = LayerRow("large", 0.5, Judgement(0.95, 0.9, 0.1), exact)
    assert small.harm == pytest.approx(1.0)
    assert large.harm == pytest.approx(0.1)
    lines = layer_table([large, small]).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["small", "large"]


# The command


@pytest.mark.usefixtures("int8_runs")
def test_the_sweep_reports_layers_and_trade_off(
    sweep: Callable[..., int], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "sweep.json"
    assert sweep("--gt", str(data / "gts"), "--layers", HEAD, "--json", str(report)) == 0
    document = json.loads(report.read_text("utf-8"))
    layers, curve = document["layers"], document["trade_off"]
    assert [row["layer"] for row in layers] == [f"decoder.levels.1.side.{index}" for index in (0, 2, 4)]
    assert layers[0]["share"] == layers[1]["share"] > layers[2]["share"] > 0
    for row in layers:
        assert 0 < row["only"]["mean_abs"] < 0.1
        assert row["only"]["delta_s"] is not None
        assert row["harm"] == pytest.approx((1 - row["only"]["mask_iou"]) / row["share"])

    floated = [row["floated"] for row in curve]
    by_harm = sorted(layers, key=lambda row: row["harm"], reverse=True)
    assert floated == ["", *(row["layer"] for row in by_harm)]
    shares = [row["share"] for row in curve]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(sum(row["share"] for row in layers))
    assert shares[-1] == 0
    assert all(row["p50_ms"] > 0 and row["fp32_ms"] > 0 for row in curve)
    assert document["judged"] == {"groups": 3, "photos": 6, "reference": "eager PyTorch, fp32"}
    assert document["calibration"] == {"groups": 4, "photos": 20}
    out = capsys.readouterr().out
    assert "decoder.levels.1.side.4" in out
    assert "stays float" in out


@pytest.mark.usefixtures("int8_runs")
def test_the_trade_off_is_drawn(sweep: Callable[..., int], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'gconet-deploy[accuracy]'")
    assert sweep("--layers", "*side.4", "--steps", "1", "--json", str(tmp_path / "sweep.json")) == 0
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("int8_runs")
def test_the_same_photos_for_both_are_pointed_out(
    tiny_checkpoint: Checkpoint, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.safetensors")
    photos = str(data / "images" / "toys")
    arguments = ["--checkpoint", str(tmp_path / "tiny.safetensors"), "--images", photos, "--calibration", photos]
    assert run(sensitivity.main, [*arguments, "--layers", "*side.4", "--photos", "1", "--rounds", "1"]) == 0
    assert "same photos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "backbone.*"], "no layer matches --layers backbone.*"),
        (["--images", "absent"], "no photo or folder at absent"),
        (["--calibration", "absent"], "no photo or folder at absent"),
        (["--gt", "absent"], "no photo or folder at absent"),
        (["--photos", "0"], "at least 1"),
        (["--size", "100"], "multiple of 16"),
        (["--target", "tensorrt"], "tensorrt"),
        (["--checkpoint", "absent.pth"], "absent.pth"),
    ],
)
def test_bad_input_is_one_line(
    sweep: Callable[..., int], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = sweep(*arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_help_says_how_to_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sensitivity.main(["--help"])
    out = capsys.readouterr().out
    assert "How to read it" in out
    assert "--calibration" in out
