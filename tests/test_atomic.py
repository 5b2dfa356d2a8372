"""Files are complete or absent, and only what concerns them is reported as theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gconet.runtime.atomic import replacing
from gconet.runtime.command_line import run, write_json
from gconet.runtime.errors import UsageError, one_line
from gconet.runtime.paths import kind_of


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_two_threads_that_write_a_file_at_once_both_write_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with replacing(path) as slow:
        slow.write_text("the first half")
        with replacing(path) as fast:  # as another thread may, in between
            fast.write_text("another's whole")
        assert path.read_text() == "another's whole"
        with slow.open("a") as file:
            file.write(" and the second")
    assert path.read_text() == "the first half and the second"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path: Path, error: OSError) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file or directory", "elsewhere"), BrokenPipeError(32, "Broken pipe")]
)
def test_errors_that_do_not_concern_the_file_pass_through(error: OSError, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("earlier")
    with pytest.raises(type(error)) as caught:
        write_half(path, error)
    assert caught.value is error
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"file\.txt: No space left"):
        write_half(tmp_path / "file.txt", OSError(28, "No space left on device"))
    assert not list(tmp_path.iterdir())


def test_an_error_that_names_the_temporary_file_is_a_usage_error(tmp_path: Path) -> None:
    def remove_what_is_not_there() -> None:
        with replacing(tmp_path / "file.txt") as temporary:
            temporary.rmdir()

    with pytest.raises(UsageError, match=r"cannot write .*file\.txt: No such file"):
        remove_what_is_not_there()


@pytest.mark.parametrize("name", [".", "/", "..", "n" * 300, "file/below"])
def test_a_report_without_a_possible_file_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("file").touch()

    def report(_: object) -> int:
        write_json(Path(name), {})
        return 0

    assert run(report, []) == 2
    assert capsys.readouterr().err.startswith("gconet: cannot write ")
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "file"]


def test_kinds_of_paths(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("absent")
    names = [".", "file", "link", "dangling", "absent", "file/below"]
    assert [kind_of(tmp_path / name) for name in names] == ["folder", "file", "file", None, None, None]


@pytest.mark.parametrize("name", ["n" * 300, "circle", "a\0b"], ids=["long", "circle", "null"])
def test_a_path_that_cannot_be_looked_at_is_a_usage_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UsageError, match="cannot look at"):
        kind_of(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "line"), [("", "ValueError"), (" \n", "ValueError"), ("\n a\nb", "a"), ("x" * 300, "x" * 200)]
)
def test_one_line_of_any_error(text: str, line: str) -> None:
    assert one_line(ValueError(text)) == line
