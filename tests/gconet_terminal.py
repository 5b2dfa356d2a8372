"""The command `gconet` as a user meets it, for tests: run in an empty folder, looked at by exit code and output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from gconet.runtime import cli, command_line


@dataclass(frozen=True)
class Outcome:
    """What a command leaves on the terminal."""

    code: int
    out: str
    err: str


Gconet = Callable[..., Outcome]


@pytest.fixture
def gconet(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gconet:
    """Run the command in an empty folder, output of engines' own libraries included."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        try:
            code = command_line.run(cli.main, [str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        return Outcome(code, *capfd.readouterr())

    return call


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_one_line_error(outcome: Outcome, *mentions: object) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("gconet")
    for mention in mentions:
        assert str(mention) in outcome.err


def fill_the_disk_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture whose file name holds `name` finds room on the disk; others do."""
    save = Image.Image.save

    def save_others(image: Image.Image, path: Path, **options: str) -> None:
        if name in path.name:
            raise OSError(28, "No space left on device")
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", save_others)
