"""`gconet parity`: several bundles, layers, scores, JSON and HTML reports, exit codes, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from parity_bundles import BundleWithFault, change_weight, scale_weights
from PIL import Image
from shapes import make_data

from gconet.bench import parity, parity_all, parity_groups
from gconet.bench.bisect_runners import graph_runner
from gconet.bench.tolerances import METRIC_TOLERANCES, MetricTolerance
from gconet.engines.target import EngineSpec
from gconet.runtime.command_line import run
from gconet.runtime.errors import TargetError
from gconet.train.checkpoint import Checkpoint

FAULTY = "decoder.levels.2.fuse.0"
TODAYS_KEYS = {"engine", "target", "precision", "checkpoint", "images", "passed", "reference", "tolerance", "rows",
               "environment"}  # fmt: skip


@pytest.fixture(scope="module")
def make_bundle(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> BundleWithFault:
    return BundleWithFault(tiny_checkpoint, tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="module")
def sound(make_bundle: BundleWithFault) -> Path:
    return make_bundle("sound", "onnxruntime", "fp32")


@pytest.fixture(scope="module")
def faulty(make_bundle: BundleWithFault) -> Path:
    return make_bundle("faulty", "openvino", "fp32", change_weight(FAULTY, 3.0))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("labelled"))


def call(make_bundle: BundleWithFault, *arguments: object) -> int:
    return run(parity.main, ["--checkpoint", str(make_bundle.checkpoint_file), *map(str, arguments)])


def test_one_sound_bundle_keeps_the_keys_it_always_had(
    make_bundle: BundleWithFault, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "deep" / "parity.json"
    assert call(make_bundle, "--bundle", sound, "--json", report) == 0
    document = json.loads(report.read_text())
    assert document.keys() >= TODAYS_KEYS
    assert document["passed"] is True
    assert [row["group"] for row in document["rows"]] == [1, 2, 4]
    assert document["bundles"] == [{key: document[key] for key in document["bundles"][0]}]
    assert str(tmp_path) not in report.read_text()
    assert "SQNR" in capsys.readouterr().out


def test_a_sound_and_a_faulty_bundle_with_everything_asked_for(
    make_bundle: BundleWithFault, sound: Path, faulty: Path, labelled: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    report, page = tmp_path / "parity.json", tmp_path / "parity.html"
    arguments = ["--bundle", sound, "--bundle", faulty, "--images", labelled / "images", "--gt", labelled / "gts"]
    assert call(make_bundle, *arguments, "--bisect", "--scan", "--json", report, "--html", page) == 1

    document = json.loads(report.read_text())
    good, bad = document["bundles"]
    assert (document["passed"], good["passed"], bad["passed"]) == (False, True, False)
    assert (good["engine"], bad["engine"], bad["target"]) == ("sound.gconet", "faulty.gconet", "openvino")
    assert good["metrics"]["passed"] is True
    assert good["metrics"]["photos"] == 12
    assert set(good["metrics"]["deltas"]) == {"mae", "max_f", "max_e", "s"}
    assert good["layers"]["first_jump"] is None
    assert bad["layers"]["first_jump"] == FAULTY
    assert bad["scan"]["passed"] is True
    printed = capsys.readouterr().out
    assert f"first jump: {FAULTY}, from" in printed
    assert "outside the tolerance" in printed
    check_page(page, document)


def check_page(path: Path, document: dict[str, Any]) -> None:
    """The page stands by itself, its pictures can be opened, and its figures are the report's."""
    page = Page(path.read_text("utf-8"))
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "http" not in path.read_text("utf-8")
    assert len(page.attributes_of("img")) == 4 * len(document["bundles"])
    for image in page.attributes_of("img"):
        assert image["alt"]
        with Image.open(io.BytesIO(base64.b64decode((image["src"] or "").partition(",")[2]))) as picture:
            picture.load()
            assert picture.size == (64, 64)
    for bundle in document["bundles"]:
        assert bundle["engine"] in page.text
        for row in bundle["rows"]:
            assert f"{row['mean_abs']:.1e}" in page.text
            assert f"{row['mask_iou']:.5f}" in page.text
        for row in bundle["layers"]["rows"]:
            assert row["layer"] in page.text
        assert bundle["layers"]["verdict"] in page.text
        assert f"{bundle['metrics']['deltas']['s']:+.5f}" in page.text
    assert "outside the tolerance: faulty.gconet" in page.text


def test_the_scan_fails_where_layers_overflow(
    make_bundle: BundleWithFault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parity_groups, "exported_layers", lambda *_: graph_runner(make_bundle.graph))  # at hand
    broken = make_bundle("broken", "onnxruntime", "fp32", scale_weights("encoder.conv3.conv3_2", math.inf))
    report, page = tmp_path / "parity.json", tmp_path / "parity.html"
    assert call(make_bundle, "--bundle", broken, "--scan", "--json", report, "--html", page) == 1
    document = json.loads(report.read_text(), parse_constant=pytest.fail)  # neither NaN nor Infinity
    assert document["layers"]["first_not_finite"] == "encoder.conv3.conv3_2"
    assert document["scan"]["passed"] is False
    assert "first NaN or infinity: encoder.conv3.conv3_2" in capsys.readouterr().out
    assert "not finite" in Page(page.read_text("utf-8")).text


def test_scores_alone_can_fail(
    make_bundle: BundleWithFault, sound: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--bundle", sound, "--images", labelled / "images", "--gt", labelled / "gts"]
    assert call(make_bundle, *arguments) == 0
    monkeypatch.setitem(METRIC_TOLERANCES, "fp32", MetricTolerance(0, -1, 0, 0, "tests"))
    assert call(make_bundle, *arguments) == 1


def test_all_builds_what_runs_here_keeps_it_and_says_why_not_of_the_rest(
    make_bundle: BundleWithFault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Target:
        precisions = ("fp32", "bf16", "int8")

        def why_not_here(self, spec: EngineSpec) -> str | None:
            return "no int8 arithmetic" if spec.precision == "int8" else None

    class Absent(Target):
        def why_not_here(self, spec: EngineSpec) -> str | None:  # noqa: ARG002
            return "no GPU: buy one"

    built: list[tuple[str, str]] = []

    def build(target: str, precision: str, checkpoint: str | None, calibration: Path | None, out: Path) -> None:
        if precision == "bf16":
            raise TargetError("this CPU has no bf16 arithmetic")
        assert (checkpoint, calibration) == (str(make_bundle.checkpoint_file), None)
        built.append((target, precision))
        shutil.copytree(make_bundle("template", "onnxruntime", "fp32"), out)

    monkeypatch.setattr(parity_all, "TARGETS", {"abacus": "", "slide-rule": ""})
    monkeypatch.setattr(parity_all, "get_target", {"abacus": Target(), "slide-rule": Absent()}.__getitem__)
    monkeypatch.setattr(parity_all, "_build", build)
    report = tmp_path / "all.json"
    for _ in range(2):
        assert call(make_bundle, "--all", tmp_path / "all", "--json", report, "--html", tmp_path / "all.html") == 0
    assert built == [("abacus", "fp32")]
    document = json.loads(report.read_text())
    assert [bundle["engine"] for bundle in document["bundles"]] == ["abacus-fp32.gconet"]
    assert document["not_run"] == {
        "abacus fp16": "the target builds fp32, bf16, int8",
        "abacus bf16": "this CPU has no bf16 arithmetic",
        "abacus int8": "no int8 arithmetic",
        "slide-rule fp32": "no GPU: buy one",
        "slide-rule fp16": "the target builds fp32, bf16, int8",
        "slide-rule bf16": "no GPU: buy one",
        "slide-rule int8": "no GPU: buy one",
    }
    assert "slide-rule fp32: not run: no GPU: buy one" in capsys.readouterr().out
    assert "no GPU: buy one" in Page((tmp_path / "all.html").read_text("utf-8")).text


def test_all_really_builds(make_bundle: BundleWithFault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = "gconet.engines.onnxruntime_target:OnnxRuntimeTarget"
    monkeypatch.setattr(parity_all, "TARGETS", {"onnxruntime": target})
    monkeypatch.setattr(parity_all, "PRECISIONS", ("fp32",))
    monkeypatch.setattr(parity_all, "MAX_GROUP", 2)
    assert call(make_bundle, "--all", tmp_path / "all") == 0
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["onnxruntime-fp32.gconet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "absent.gconet"], "absent.gconet"),
        (["--bundle", "SOUND", "--bundle", "SOUND"], "cannot be told apart"),
        (["--bundle", "SOUND", "--images", "absent"], "absent"),
        (["--bundle", "SOUND", "--gt", "absent"], "absent"),
        (["--bundle", "SOUND", "--images", "LABELLED/images", "--gt", "LABELLED/gts/toys/disc"], "must mirror"),
        (["--bundle", "SOUND", "--device", "abacus"], "abacus"),
        (["--bundle", "SOUND", "--calibration", "LABELLED"], "--all"),
        (["--bundle", "SOUND", "--html", "LABELLED"], "LABELLED"),
    ],
)
def test_bad_input_is_one_line(
    make_bundle: BundleWithFault,
    sound: Path,
    labelled: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def resolve(text: str) -> str:
        return text.replace("SOUND", str(sound)).replace("LABELLED", str(labelled))

    assert call(make_bundle, *map(resolve, arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("parity: group of")]
    assert len(lines) == 1
    assert resolve(message) in lines[0]
    assert not [path for path in labelled.parent.iterdir() if "partial" in path.name]


def test_layers_need_polygraphy_and_say_how_to_get_it(
    make_bundle: BundleWithFault, sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    assert call(make_bundle, "--bundle", sound, "--bisect") == 2
    assert "pip install polygraphy" in capsys.readouterr().err
