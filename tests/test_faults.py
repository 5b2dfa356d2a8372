"""Faults on purpose, each a few times: the same functions that `python bench/faults.py` runs hundreds of times."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gconet.bench import fault_commands, fault_files, fault_forks, fault_kills, fault_trust, faults
from gconet.bench.fault_rows import Fault, fault_table
from gconet.runtime.command_line import run
from gconet.runtime.errors import BundleError, TargetError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and limits are used as Linux has them")
RESULTS = Path(__file__).resolve().parents[1] / "bench" / "results"


@pytest.fixture
def bundle(tiny_bundle: Callable[[str, str], Path]) -> Path:
    return tiny_bundle("onnxruntime", "fp32")


@pytest.fixture
def draw() -> random.Random:
    return random.Random(2)


def assert_nothing_lost(fault: Fault, tries: int) -> None:
    assert not fault.losses
    assert fault.tries == tries


def test_killed_detect_runs_leave_whole_maps_only(bundle: Path, tmp_path: Path, draw: random.Random) -> None:
    assert_nothing_lost(fault_kills.kill_detect(bundle, tmp_path, 3, draw), 3)


def test_a_bundle_that_is_put_in_place_is_never_half_there(tmp_path: Path, draw: random.Random) -> None:
    assert_nothing_lost(fault_kills.kill_publishing(tmp_path, 4, draw), 4)


@pytest.mark.slow
def test_killed_builds_leave_a_whole_bundle_or_none(tmp_path: Path, draw: random.Random) -> None:
    fault_commands.write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    assert_nothing_lost(fault_kills.kill_build(tmp_path / "tiny.safetensors", tmp_path, 2, draw), 2)


@pytest.mark.slow
def test_two_builds_at_once_are_both_done(tmp_path: Path) -> None:
    fault_commands.write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    fault = fault_kills.build_twice(tmp_path / "tiny.safetensors", tmp_path, 1)
    assert_nothing_lost(fault, 1)
    assert fault.outcomes == {"both done": 1}


@pytest.mark.slow
def test_a_disk_without_room_is_told_in_one_line(bundle: Path, tmp_path: Path) -> None:
    fault_commands.write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    fault = fault_commands.fill_disk(bundle, tmp_path / "tiny.safetensors", tmp_path, [0])
    assert_nothing_lost(fault, 4)
    assert fault.outcomes == {"refused in one line, nothing left": 4}


def test_what_was_tampered_with_is_refused(bundle: Path, tmp_path: Path, draw: random.Random) -> None:
    for fault in (
        fault_trust.flip_artefacts(bundle, tmp_path, 20, draw),
        fault_trust.tamper_signed(bundle, tmp_path, 20, draw),
        fault_trust.name_outside(bundle, tmp_path),
        fault_trust.bad_keys(tmp_path),
    ):
        assert not fault.losses
        assert set(fault.outcomes) == {"refused"}


def test_hostile_checkpoints_run_nothing_and_fill_nothing(tmp_path: Path) -> None:
    fault = fault_trust.hostile_checkpoints(tmp_path)
    assert not fault.losses
    assert set(fault.outcomes) == {"refused"}
    assert fault.tries >= 8


def test_bombs_are_refused_in_little_memory(bundle: Path, tmp_path: Path) -> None:
    fault, peak = fault_files.bombs(bundle, tmp_path)
    assert not fault.losses
    assert 0 < peak < faults.MAX_PEAK_MB


def test_what_is_no_number_is_refused(bundle: Path, tmp_path: Path) -> None:
    assert_nothing_lost(fault_files.not_numbers(bundle, tmp_path), 15)


def test_odd_names_are_names(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_files, "ODD_NAMES", (b"new\nline.jpg", b"\x1b[31mred.jpg", b"not-utf8-\xff.jpg"))
    assert_nothing_lost(fault_files.odd_names(bundle, tmp_path), 6)


def test_a_loss_is_counted_and_ends_in_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise BundleError("no")

    def crash() -> None:
        raise KeyError("a bug")

    fault = Fault("a fault")
    fault.attempt(refuse)
    fault.attempt(crash)
    fault.attempt(lambda: None)
    assert fault.outcomes == {"refused": 1, "crashed": 1, "accepted": 1}
    assert [loss.split(":")[0] for loss in fault.losses] == ["crashed", "accepted"]

    monkeypatch.setattr(faults, "_try", lambda _: [("names", fault)])
    report, table = tmp_path / "faults.json", tmp_path / "faults.md"
    assert faults.main(["--json", str(report), "--markdown", str(table)]) == 1
    (row,) = json.loads(report.read_bytes())["faults"]
    assert (row["tries"], row["lost"]) == (3, 2)
    assert "| a fault | 3 | 1 accepted, 1 crashed, 1 refused | 2 |" in table.read_text("utf-8")
    assert "KeyError" in capsys.readouterr().err


def test_rows_are_added_only_to_a_report_of_the_same_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = Fault("odd names")
    fault.note("done")
    monkeypatch.setattr(faults, "_try", lambda _: [("names", fault)])
    report, words = tmp_path / "faults.json", ["--only", "names", "--only", "names", "--json"]
    for _ in range(2):  # a new report, and the same again
        assert run(faults.main, [*words, str(report)]) == 0
        assert len(json.loads(report.read_bytes())["faults"]) == 1
    before = report.read_bytes()
    assert run(faults.main, [*words, str(report), "--seed", "2"]) == 2
    assert "another --seed" in capsys.readouterr().err
    assert report.read_bytes() == before
    for content in ("no JSON", "[]", '{"faults": 1}', '{"other": []}'):
        report.write_text(content, "utf-8")
        assert run(faults.main, [*words, str(report)]) == 2
        assert "no report of faults" in capsys.readouterr().err
    assert run(faults.main, [*words, str(tmp_path)]) == 2


def test_steps_that_are_named_twice_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_commands, "must_succeed", lambda _: None)
    monkeypatch.setattr(faults, "STEPS", {"names": lambda _, place: Fault(place.name)})
    options = argparse.Namespace(only=["names", "names"], kills=1, pairs=1, tries=1, seed=1)
    assert [step for step, _ in faults._try(options)] == ["names"]


def _publish(server: fault_forks.ForkServer) -> None:
    with contextlib.suppress(TargetError):  # the server has ended
        server.once(60)


def test_nothing_goes_on_after_an_interruption(tmp_path: Path) -> None:
    out = tmp_path / "published" / "small.gconet"
    with contextlib.suppress(KeyboardInterrupt), fault_forks.fork_server("publish", [out]) as server:
        asking = threading.Thread(target=_publish, args=(server,), daemon=True)
        asking.start()
        while not out.exists():
            time.sleep(0.05)
        raise KeyboardInterrupt
    first = out.stat().st_mtime_ns
    time.sleep(0.5)
    assert out.stat().st_mtime_ns == first  # nobody publishes any more


def test_the_readme_shows_the_committed_table() -> None:
    readme = (RESULTS / "README.md").read_text("utf-8")
    results = sorted(RESULTS.glob("faults-*.json"))
    assert results
    for path in results:
        assert fault_table(json.loads(path.read_bytes())["faults"]) in readme
        assert path.name in readme
