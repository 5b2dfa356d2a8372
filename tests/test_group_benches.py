"""The benches of group sizes and forms, on tiny bundles."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from gconet.bench import detect_share, group_forms, group_size_run, group_sizes
from gconet.bench.group_size_run import PhotoRow
from gconet.bench.photo_groups import EXAMPLES, extend_photos
from gconet.runtime.command_line import run
from gconet.runtime.preprocess import Photo

Bundles = Callable[[str, str], Path]


def test_forms_agree_and_have_a_cost(tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--bundle", str(tiny_bundle("onnxruntime", "fp32")), "--sizes", "1", "5", "--rounds", "2"]
    assert run(group_forms.main, [*arguments, "--json", str(tmp_path / "f.json")]) == 0
    document = json.loads((tmp_path / "f.json").read_text())
    assert [row["photos"] for row in document["agreement"]] == [1, 5]
    assert document["bundle"]["target"] == "onnxruntime"
    for row in document["agreement"]:
        assert max(row["blocks"], row["builder"], row["segment"]) < 1e-5
    assert document["cost"]["ratio"] == pytest.approx(
        document["cost"]["segment_one_ms"] / document["cost"]["detect_pair_ms"]
    )
    assert "| 5 | " in capsys.readouterr().out


@pytest.mark.slow
def test_sizes_are_measured_each_in_its_process(
    tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["--bundle", str(tiny_bundle("openvino", "fp32")), "--sizes", "2", "20", "--peers", "none"]
    out = ["--json", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.png")]
    assert run(group_sizes.main, [*arguments, *out]) == 0
    rows = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert [(row["engine"], row["group"]) for row in rows] == [("openvino fp32", 2), ("openvino fp32", 20)]
    assert all(row["peak_rss_mb"] > 10 and row["ms_per_photo"] * row["group"] == row["seconds"] * 1000 for row in rows)
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 1000
    assert capsys.readouterr().out.count("| openvino fp32 |") == 2


def test_a_method_that_runs_out_of_memory_says_so(
    tiny_bundle: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gconet.bench.group_sizes.MEMORY_SHARE", 1e-4)  # a few MB
    arguments = ["--bundle", str(tiny_bundle("onnxruntime", "fp32")), "--sizes", "2", "4", "--peers", "none"]
    assert run(group_sizes.main, [*arguments, "--json", str(tmp_path / "s.json")]) == 0
    assert [row["failed"] for row in json.loads((tmp_path / "s.json").read_text())["rows"]] == ["out of memory"]
    assert "| out of memory |" in capsys.readouterr().out


def test_a_row_of_photos_is_the_extended_list(example_photos: list[Photo]) -> None:
    row, whole = PhotoRow(example_photos[:3], 8), extend_photos(example_photos[:3], 8)
    assert len(row) == 8
    assert all((made == kept).all() for made, kept in zip(row, whole, strict=True))


def test_one_run_prints_its_figures(tiny_bundle: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group_size_run.main, ["--bundle", str(tiny_bundle("onnxruntime", "fp32")), "--group", "3"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert len(figures["samples"]) == 3
    assert figures["peak_rss_mb"] > 10


def test_the_share_of_compute_is_of_the_whole(
    tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(EXAMPLES), "--bundle", str(tiny_bundle("onnxruntime", "fp32")), "--json", str(tmp_path / "s.json")]
    assert run(detect_share.main, arguments) == 0
    figures = json.loads((tmp_path / "s.json").read_text())
    assert (figures["photos"], figures["groups"]) == (20, 4)
    assert 0 < figures["compute_s"] + figures["first_calls_s"] <= figures["whole_s"]
    assert "20 photos of 4 groups" in capsys.readouterr().out


@pytest.mark.parametrize("peer", ["eager", "onnxruntime"])
def test_a_peer_is_measured_without_the_bundles_engine(
    peer: str,
    tiny_bundle: Bundles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(group_size_run, "load", None)
    words = ["--bundle", str(tiny_bundle("openvino", "fp32")), "--group", "2", "--peer", peer]
    assert run(group_size_run.main, [*words, "--graphs", str(tmp_path)]) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 3


@pytest.mark.parametrize(
    ("code", "said", "failed"),
    [(-9, "", "out of memory"), (-6, "std::bad_alloc", "out of memory"), (-11, "", "ended by SIGSEGV")],
)
def test_a_crash_is_not_called_want_of_memory(
    code: int, said: str, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess[str]([], code, "", said)
    monkeypatch.setattr(group_sizes.subprocess, "run", lambda *_, **__: done)
    assert group_sizes._measure([], 2) == {"failed": failed}


@pytest.mark.parametrize("bench", [group_forms, group_sizes, detect_share])
def test_a_report_that_cannot_be_written_is_told_first(
    bench: ModuleType, tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [str(EXAMPLES)] if bench is detect_share else []
    words = [*photos, "--bundle", str(tiny_bundle("onnxruntime", "fp32")), "--json", str(tmp_path)]
    assert run(bench.main, words) == 2
    assert "it is a folder, name a file" in capsys.readouterr().err


def test_a_bundle_of_one_graph_has_no_share_of_compute(
    tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detect_share, "GraphSession", int)  # what no session is
    assert run(detect_share.main, [str(EXAMPLES), "--bundle", str(tiny_bundle("onnxruntime", "fp32"))]) == 2
    assert "has one graph only" in capsys.readouterr().err
