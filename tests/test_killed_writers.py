"""What writers leave that were killed, and how the next run deals with it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gconet.runtime.atomic import partial_of, short
from gconet.runtime.errors import UsageError
from gconet.runtime.map_files import plan_maps, write_maps
from gconet.runtime.photos import Group


def test_a_group_killed_while_its_maps_got_names_is_done_again(tmp_path: Path) -> None:
    group = Group(Path("cats"), (Path("a.jpg"), Path("b.jpg")))
    (_, paths), *_ = plan_maps([group], tmp_path, False, True)
    maps = [np.full((2, 3), value, np.float32) for value in (0.25, 0.75)]
    write_maps(paths, maps)
    whole = {path: path.read_bytes() for path in paths}
    assert plan_maps([group], tmp_path, False, True) == []

    paths[1].unlink()
    with pytest.raises(UsageError, match="exists already"):
        plan_maps([group], tmp_path, False, True)
    left = paths[1].with_name(f".{paths[1].name}.partial-123")
    left.write_bytes(b"complete, but without its name")
    with pytest.raises(UsageError, match="exists already"):
        plan_maps([group], tmp_path, False, False)
    ((again, where),) = plan_maps([group], tmp_path, False, True)
    assert (again, where) == (group, paths)
    write_maps(paths, maps)
    assert {path: path.read_bytes() for path in paths[0].parent.iterdir()} == whole


def test_leftovers_are_gone_before_the_first_map_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    left = tmp_path / ".b.png.partial-123"
    left.write_bytes(b"of a run that was killed")
    seen, replace = [], os.replace

    def look(source: Path, target: Path) -> None:
        seen.append(left.exists())
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_maps(paths, [np.zeros((2, 3), np.float32)] * 2)
    assert seen == [False, False]
    assert sorted(tmp_path.iterdir()) == paths


def test_maps_may_have_the_longest_names(tmp_path: Path) -> None:
    paths = [tmp_path / f"{first}{'猫' * 83}.png" for first in "ab"]  # 1 + 83 · 3 + 4 bytes, one less than can be
    left = short(paths[1]).with_name(f".{short(paths[1]).name}.partial-123")
    left.write_bytes(b"of a run that was killed")
    maps = [np.full((2, 3), value, np.float32) for value in (0.25, 0.75)]
    write_maps(paths, maps)
    assert sorted(tmp_path.iterdir()) == paths
    assert paths[0].read_bytes() != paths[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "final"),
    [
        (".a.png.partial-12", "a.png"),
        (".a.png.partial-12.3", "a.png"),
        (".partial-1.png.partial-2", "partial-1.png"),
        ("a.png.partial-1", None),
        (".a.png.partial-", None),
        (".partial-3", None),
        (".a.png", None),
    ],
)
def test_names_of_temporary_files(name: str, final: str | None) -> None:
    assert partial_of(Path("folder") / name) == (Path("folder") / final if final else None)
