"""A folder that takes another's place in one step, and what killed writers leave."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gconet.engines import staging
from gconet.engines.staging import put_in_place, staging_folder

SOURCE = Path(__file__).resolve().parents[1] / "src"


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text(text)
    return folder


@pytest.mark.parametrize("exchange", [True, False], ids=["in one step", "in two"])
def test_a_folder_takes_the_place_of_another(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    out = write(tmp_path / "out", "earlier")
    with staging_folder(out) as folder:
        put_in_place(write(folder, "new"), out)
    assert (out / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders in one step")
def test_there_is_no_moment_without_a_folder(tmp_path: Path) -> None:
    out, missing, over = write(tmp_path / "out", "first"), list[int](), threading.Event()

    def look() -> None:
        while not over.is_set():
            if not os.path.lexists(out):
                missing.append(1)

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(200):
        with staging_folder(out) as folder:
            put_in_place(write(folder, str(number)), out)
    over.set()
    thread.join()
    assert not missing
    assert (out / "file").read_text() == "199"


def test_a_link_to_a_folder_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    target = write(tmp_path / "target", "precious")
    out = tmp_path / "out"
    out.symlink_to(target)
    with staging_folder(out) as folder:
        put_in_place(write(folder, "new"), out)
    assert not out.is_symlink()
    assert (out / "file").read_text() == "new"
    assert (target / "file").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "target"]


def test_of_two_writers_at_once_the_last_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with staging_folder(out) as first:
        write(first, "first")
        monkeypatch.setattr(os, "getpid", lambda: 999_999_999)
        with staging_folder(out) as second:
            put_in_place(write(second, "second"), out)
        put_in_place(first, out)
    assert (out / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks of folders: leftovers stay")
def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    out = tmp_path / "o[u]t*"
    code = "import sys, time; from pathlib import Path; from gconet.engines.staging import staging_folder\n"
    code += "with staging_folder(Path(sys.argv[1])):\n    print('ready', flush=True)\n    time.sleep(60)"
    words, environment = [sys.executable, "-c", code, str(out)], {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        (theirs,) = tmp_path.iterdir()
        with staging_folder(out) as ours:
            assert set(tmp_path.iterdir()) == {theirs, ours}
        process.kill()
    with staging_folder(out) as ours:
        assert list(tmp_path.iterdir()) == [ours]
    assert not list(tmp_path.iterdir())


def test_errors_but_of_a_name_taken_pass_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = write(tmp_path / "out", "earlier")
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="No space left"):
        put_in_place(write(tmp_path / "new", "new"), out)
    assert (out / "file").read_text() == "earlier"


def test_the_earlier_folder_comes_back_if_the_second_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, new = write(tmp_path / "out", "earlier"), write(tmp_path / "new", "new")
    rename = Path.rename

    def fail_for_new(path: Path, target: Path) -> Path:
        if path == new and not out.exists():
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(OSError, match="Input/output"):
        put_in_place(new, out)
    assert (out / "file").read_text() == "earlier"
