"""`gconet evaluate`: what it prints and writes, and how it refuses folders that do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gconet.bench import accuracy
from gconet.bench.published import PUBLISHED, SOURCES, published_on
from gconet.runtime import cli
from gconet.runtime.command_line import run

REPOSITORY = Path(__file__).resolve().parents[1]
SCORES = {"mae", "max_f", "mean_f", "max_e", "mean_e", "s", "ap", "auc"}
Evaluate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folders(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    """Maps and truths: two groups, of two and of one; apples are found, the pear is missed."""
    maps, truths = tmp_path / "maps", tmp_path / "gts"
    for name, found in (("apple/1", True), ("apple/2", True), ("pear/1", False)):
        truth = np.zeros((24, 30), np.uint8)
        truth[6:15, 8:20] = 255
        saliency = (truth if found else 255 - truth) // 2 + rng.integers(0, 60, truth.shape, np.uint8)
        for root, picture in ((maps, saliency), (truths, truth)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / f"{name}.png")
    return maps, truths


@pytest.fixture
def evaluate(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Run the command on the folders; exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(cli.main, ["evaluate", "--pred", str(folders[0]), "--gt", str(folders[1]), *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize("toolbox", ["eval-co-sod", "pysodmetrics"])
def test_report_has_the_promised_keys(evaluate: Evaluate, tmp_path: Path, toolbox: str) -> None:
    if toolbox == "pysodmetrics":
        pytest.importorskip("py_sod_metrics")
    report = tmp_path / "deep" / "scores.json"
    code, out, _ = evaluate("--toolbox", toolbox, "--per-group", "--json", str(report))
    assert code == 0
    document = json.loads(report.read_text())
    assert document["toolbox"] == toolbox
    assert document["dataset"] == "gts"
    assert [(row["name"], row["maps"]) for row in document["rows"]] == [("gts", 3), ("apple", 2), ("pear", 1)]
    whole, apple, pear = document["rows"]
    assert all(set(row) == {"name", "maps"} | SCORES for row in document["rows"])
    assert whole["mae"] == pytest.approx((2 * apple["mae"] + pear["mae"]) / 3)  # over maps, not groups
    assert whole["s"] == pytest.approx((2 * apple["s"] + pear["s"]) / 3)
    assert apple["max_f"] > 0.95 > pear["max_f"]
    assert whole["max_f"] == max(document["curves"]["f"])
    assert {len(curve) for curve in document["curves"].values()} == {255 if toolbox == "eval-co-sod" else 256}
    for title in ("max-F", "mean-E", "AUC", f"{whole['max_f']:.3f}", f"{pear['s']:.3f}"):
        assert title in out


def test_only_the_data_set_is_scored_unless_groups_are_asked_for(evaluate: Evaluate) -> None:
    _, out, _ = evaluate()
    assert "gts " in out
    assert "apple" not in out


def test_published_rows_of_the_data_set_by_its_name(
    evaluate: Evaluate, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = evaluate()
    assert "on other data sets" in out
    assert all(f"{row.model} on {row.dataset}" in out for row in PUBLISHED)
    renamed = folders[1].rename(folders[1].with_name("coca"))
    assert run(accuracy.main, ["--pred", str(folders[0]), "--gt", str(renamed)]) == 0
    out = capsys.readouterr().out
    assert "GCoNet on CoCA" in out
    assert "0.544" in out
    assert "CoSOD3k" not in out
    assert "other data sets" not in out


def test_published_figures_are_complete_and_sourced() -> None:
    assert {row.model for row in PUBLISHED} == set(SOURCES)
    for dataset in ("CoCA", "CoSOD3k", "Cosal2015"):
        assert [row.model for row in published_on(dataset)] == list(SOURCES)
    assert not published_on("VOC")
    assert all(0 < value < 1 for row in PUBLISHED for value in (row.max_e, row.s, row.max_f, row.mae))


def test_missing_and_extra_maps_are_listed(evaluate: Evaluate, folders: tuple[Path, Path]) -> None:
    (folders[0] / "apple/2.png").rename(folders[0] / "apple/3.png")
    (folders[0] / "pear/1.png").rename(folders[0] / "apple/4.png")
    code, _, err = evaluate()
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "2 missing in" in err
    assert "apple/2, pear/1" in err
    assert "2 without a truth in" in err
    assert "apple/3, apple/4" in err


def test_a_long_list_is_cut(evaluate: Evaluate, folders: tuple[Path, Path]) -> None:
    for index in range(25):
        Image.new("L", (4, 4)).save(folders[1] / f"pear/more{index:02}.png")
    code, _, err = evaluate()
    assert code == 2
    assert "25 missing" in err
    assert "pear/more19 and 5 more" in err
    assert "more20" not in err


def test_every_damaged_picture_is_named(evaluate: Evaluate, folders: tuple[Path, Path]) -> None:
    maps, truths = folders
    (maps / "apple/1.png").write_bytes((maps / "apple/1.png").read_bytes()[:100])
    (truths / "pear/1.png").write_text("not a picture")
    code, _, err = evaluate()
    assert code == 2
    assert len(err.splitlines()) == 1
    assert str(maps / "apple/1.png") in err
    assert str(truths / "pear/1.png") in err


def test_a_map_of_another_size_is_resized_or_refused(evaluate: Evaluate, folders: tuple[Path, Path]) -> None:
    path = folders[0] / "apple/1.png"
    with Image.open(path) as image:
        image.resize((60, 48), Image.Resampling.BILINEAR).save(path)
    assert evaluate()[0] == 0
    pytest.importorskip("py_sod_metrics")
    code, _, err = evaluate("--toolbox", "pysodmetrics")
    assert code == 2
    assert f"{path} has 60×48 pixels, its truth 30×24" in err


def test_a_truth_of_zeros_and_ones_is_named_not_scored(evaluate: Evaluate, folders: tuple[Path, Path]) -> None:
    path = sorted(folders[1].rglob("*.png"))[0]
    with Image.open(path) as truth:
        truth.point(lambda grey: grey // 128).save(path)
    code, out, err = evaluate()
    assert code == 2
    assert f"{path} has no grey value above 1: 255 is the shared object" in err
    assert not out
    Image.new("L", truth.size).save(path)  # nothing shared in view: that can be
    assert evaluate()[0] == 0


def test_a_report_that_cannot_be_written_is_told_before_maps_are_read(evaluate: Evaluate, tmp_path: Path) -> None:
    code, out, err = evaluate("--json", str(tmp_path))
    assert code == 2
    assert "it is a folder" in err
    assert not out


def test_maps_may_have_another_format_than_truths(evaluate: Evaluate, folders: tuple[Path, Path]) -> None:
    path = folders[0] / "apple/1.png"
    with Image.open(path) as image:
        image.save(path.with_suffix(".bmp"))
    code, _, err = evaluate()
    assert code == 2
    assert "would share one map" in err
    path.unlink()
    assert evaluate()[0] == 0


def test_pictures_without_groups_are_a_data_set_too(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--pred", str(folders[0] / "apple"), "--gt", str(folders[1] / "apple")]
    assert run(accuracy.main, arguments) == 0
    assert "eval-co-sod, 1 group of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pred", "absent", "--gt", "."], "no folder at absent"),
        (["--pred", ".", "--gt", "empty"], "no photos in empty"),
        (["--pred", "."], "--gt"),
        (["--pred", ".", "--gt", ".", "--toolbox", "matlab"], "matlab"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    try:
        code = run(accuracy.main, arguments)
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else -1
    err = capsys.readouterr().err
    assert code == 2
    assert len(err.splitlines()) == 1
    assert message in err


@pytest.mark.parametrize("extra", [[], ["--per-group"]])
def test_plots_are_pictures(evaluate: Evaluate, tmp_path: Path, extra: list[str]) -> None:
    pytest.importorskip("matplotlib")
    code, out, _ = evaluate("--plots", str(tmp_path / "plots"), *extra)
    assert code == 0
    for name in ("precision-recall.png", "f-measure.png"):
        with Image.open(tmp_path / "plots" / name) as image:
            assert image.format == "PNG"
            assert image.size == (900, 675)
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert np.ptp(pixels, axis=2).max() == 0  # nothing is told by colour
        assert pixels.min() == 0
        assert str(tmp_path / "plots" / name) in out


@pytest.mark.parametrize(
    ("module", "arguments"), [("py_sod_metrics", ["--toolbox", "pysodmetrics"]), ("matplotlib", ["--plots", "plots"])]
)
def test_a_missing_library_is_named_with_its_extra(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, module: str, arguments: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, out, err = evaluate(*arguments)
    assert code == 2
    assert not out
    assert len(err.splitlines()) == 1
    assert "pip install 'gconet-deploy[accuracy]'" in err


def test_scores_need_no_optional_library() -> None:
    heavy = "matplotlib py_sod_metrics torch onnx openvino onnxruntime"
    code = f"import sys, gconet.bench.accuracy; print([m for m in '{heavy}'.split() if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "src", capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "[]"


def test_script_runs_by_its_path(folders: tuple[Path, Path]) -> None:
    command = [sys.executable, "bench/accuracy.py", "--pred", str(folders[0]), "--gt", str(folders[1])]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "max-F" in done.stdout
