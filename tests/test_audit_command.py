"""`gconet audit`: the tables it prints, the figures it writes, its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gconet.bench import tolerances
from gconet.bench.tolerances import Tolerance
from gconet.export import audit_command
from gconet.runtime.command_line import run
from gconet.train.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture
def audit(tiny_checkpoint: Checkpoint, tmp_path: Path) -> Callable[..., int]:
    """Run the command on the tiny checkpoint."""
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.safetensors")

    def call(*arguments: str) -> int:
        return run(audit_command.main, ["--checkpoint", str(tmp_path / "tiny.safetensors"), *arguments])

    return call


def test_layers_casts_islands_and_parity_are_shown_and_written(
    audit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "audit.json"
    assert audit("--groups", "2", "1", "--json", str(report), "--exact") == 0
    printed = capsys.readouterr().out
    document = json.loads(report.read_text())
    for entry in document["ranges"]:
        assert " + ".join(entry["layers"]) in printed
        assert entry["largest"] * entry["factor"] * entry["head_room"] == pytest.approx(65504)
    assert all(cast in printed for cast in document["casts"])
    assert "gam.output" in document["islands"]
    assert [row["group"] for row in document["rows"]] == [1, 2]
    assert document["share"] == document["convolution_operations"]["fp16"] / sum(
        document["convolution_operations"].values()
    )
    assert document["arithmetic"] == "PyTorch's own kernels"


def test_outside_the_tolerance_is_exit_code_1(audit: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    impossible = Tolerance(0.0, 0.0, 1.0, "tests")
    monkeypatch.setitem(tolerances.TOLERANCES, ("pytorch", "bf16"), impossible)  # type: ignore[misc]
    assert audit("--groups", "1", "--precision", "bf16") == 1


def test_a_calibration_folder_without_photos_is_one_line(
    audit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        assert audit("--calibration", str(tmp_path / folder)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert folder in line
