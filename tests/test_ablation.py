"""The ablation: six rows, one budget, scores of the last checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shapes import make_data

from gconet.bench import ablation
from gconet.bench.ablation import ROWS, ablation_table
from gconet.runtime.command_line import run
from gconet.train.checkpoint import random_checkpoint, read_checkpoint, save_checkpoint


def test_rows_are_trained_with_their_switches_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path / "data")
    arguments = ["--data", str(data), "--out", str(tmp_path / "runs"), "--hold-out", "toys/disc", "--steps", "1"]
    arguments += ["--group-size", "2", "--sizes", "32", "--workers", "0"]
    arguments += ["--seeds", "1", "--rows", "baseline", "GAM+GCM"]
    assert run(ablation.main, arguments) == 0
    document = json.loads((tmp_path / "runs" / "ablation.json").read_text())
    assert {row: len(runs) for row, runs in document["rows"].items()} == {"baseline": 1, "GAM+GCM": 1}
    assert str(tmp_path) not in json.dumps(document)
    for folder, row in (("baseline-seed1", "baseline"), ("gam-gcm-seed1", "GAM+GCM")):
        architecture = read_checkpoint(tmp_path / "runs" / folder / "last.safetensors").info.architecture
        assert (architecture.gam, architecture.gcm, architecture.acm) == (ROWS[row].gam, ROWS[row].gcm, ROWS[row].acm)
    assert capsys.readouterr().out.splitlines()[-1].startswith("GAM+GCM")

    # Rows that are trained later join those there, if all else is the same.
    assert run(ablation.main, [*arguments[:-2], "+GAM"]) == 0
    later = json.loads((tmp_path / "runs" / "ablation.json").read_text())
    assert list(later["rows"]) == ["baseline", "GAM+GCM", "+GAM"]
    assert later["rows"]["baseline"] == document["rows"]["baseline"]
    capsys.readouterr()

    assert run(ablation.main, [*arguments[:4], "--steps", "1"]) == 2
    assert "--hold-out" in capsys.readouterr().err
    for argument in (["--seed", "1"], ["--no-gam"]):  # the rows and --seeds say
        with pytest.raises(SystemExit, match="2"):
            run(ablation.main, [*arguments, *argument])
    capsys.readouterr()
    (data / "images/toys/disc/0.jpg").write_text("not a photo")
    (data / "images/toys/square/0.jpg").write_text("not a photo")
    assert run(ablation.main, arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_rows_that_go_on_with_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = tmp_path / "start.safetensors"
    save_checkpoint(random_checkpoint(), start)
    data, out = str(make_data(tmp_path / "data")), str(tmp_path / "runs")
    arguments = ["--data", data, "--out", out, "--hold-out", "toys/disc",
                 "--steps", "1", "--group-size", "2", "--sizes", "32", "--workers", "0", "--start-from", str(start),
                 "--seeds", "1", "1", "--rows", "+GAM"]  # fmt: skip
    assert run(ablation.main, [*arguments, "baseline"]) == 2  # before +GAM is trained
    assert "has a GAM, which baseline lack" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert run(ablation.main, arguments) == 0
    document = json.loads((tmp_path / "runs" / "ablation.json").read_text())
    assert document["settings"]["start_from"] == "start.safetensors"
    assert document["seeds"] == [1]  # named twice, it is still one run
    assert len(document["rows"]["+GAM"]) == 1


def test_features_are_computed_once_for_all_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs"
    arguments = ["--data", str(make_data(tmp_path / "data")), "--out", str(out), "--hold-out", "toys/disc", "--steps",
                 "2", "--group-size", "2", "--sizes", "32", "--workers", "0", "--levels", "4", "1", "--reuse", "2",
                 "--attention-loss", "1", "--rows", "baseline", "+ACM"]  # fmt: skip
    assert run(ablation.main, arguments) == 0
    assert "0 are computed on the way" in capsys.readouterr().out
    assert len(list(out.glob("features/*/*"))) == 1
    record = json.loads((out / "baseline-seed0/log.jsonl").read_text().splitlines()[0])
    assert record["loss/collaborating"] == 0  # what has no GAM has no attention to teach


def test_all_six_rows_of_the_papers_table_are_there() -> None:
    switches = {(a.gam, a.gcm, a.acm) for a in ROWS.values()}
    assert len(ROWS) == len(switches) == 6


def test_table_shows_mean_and_spread() -> None:
    runs = [{"s": 0.5, "max_f": 0.4, "max_e": 0.6, "mae": 0.1}, {"s": 0.7, "max_f": 0.4, "max_e": 0.6, "mae": 0.1}]
    line = ablation_table({"all": runs}).splitlines()[1]
    assert "0.600 ± 0.141" in line
    assert "0.400 ± 0.000" in line
    assert "±" not in ablation_table({"all": runs[:1]})
