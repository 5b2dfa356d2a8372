"""`gconet show`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gconet.runtime as gr
from gconet.runtime import cli, command_line
from gconet.runtime.group_vectors import measure_spread
from gconet.runtime.photos import find_groups
from gconet.runtime.preprocess import Photo
from gconet.runtime.show_group import Scope, look_at

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'gconet-deploy[pictures]'")
pytest.importorskip("sklearn", reason="the t-SNE needs scikit-learn: pip install 'gconet-deploy[pictures]'")

Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bundle(tiny_bundle: Callable[[str, str], Path]) -> Path:
    return tiny_bundle("onnxruntime", "fp32")


@pytest.fixture
def tree(tmp_path: Path, example_photos: list[Photo]) -> Path:
    """Two groups of three photos, one of them nested, one photo named as an attacker would."""
    names = ["cats/a.png", "cats/b.png", "cats/<b>&.png", "more/été/a.png", "more/été/b.png", "more/été/c.png"]
    for name, photo in zip(names, example_photos, strict=False):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[::3, ::2]).save(path)
    return tmp_path / "photos"


@pytest.fixture
def show(capfd: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path) -> Show:
    """Run `gconet show` into `out`."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        line = ["show", *arguments, "--bundle", bundle, "--out", tmp_path / "out", "--threads", "1"]
        try:
            code = command_line.run(cli.main, [str(argument) for argument in line])
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        return code, *capfd.readouterr()

    return call


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_tree_gets_sheets_a_gallery_a_space_and_numbers(show: Show, tree: Path, bundle: Path, tmp_path: Path) -> None:
    code, out, err = show(tree)
    assert (code, err) == (0, "")
    expected = {"cats/sheet.png", "more/été/sheet.png", "index.html", "space.png", "show.json"}
    assert files(tmp_path / "out") == expected
    assert re.search(r"2 sheets, index\.html \(.* MB\), space\.png, show\.json in ", out)
    document = json.loads((tmp_path / "out/show.json").read_text("utf-8"))
    (entry,) = document["bundles"]
    detector = gr.load(bundle, threads=1)
    alone = [
        (name, np.stack([detector.consensus([path]) for path in sorted((tree / name).iterdir())]))
        for name in ("cats", "more/été")
    ]
    spread = measure_spread(alone)
    assert entry["d"] == pytest.approx(spread.d, rel=1e-4)
    assert entry["ratio"] == pytest.approx(spread.ratio, rel=1e-4)
    assert [(group["name"], group["subgroups"]) for group in entry["groups"]] == [("cats", 3), ("more/été", 3)]
    assert f"{spread.d:.4f}" in out
    for name in expected:
        if name.endswith(".png"):
            with Image.open(tmp_path / "out" / name) as image:
                assert image.format == "PNG"


def test_the_same_command_gives_the_same_bytes(show: Show, tree: Path, tmp_path: Path) -> None:
    assert show(tree)[0] == 0
    first = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}
    assert show(tree, "--overwrite")[0] == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")} == first


def test_one_group_has_no_space_to_lie_in(show: Show, tree: Path, tmp_path: Path) -> None:
    code, out, err = show(tree / "cats")
    assert (code, err) == (0, "")
    assert files(tmp_path / "out") == {"sheet.png", "index.html", "show.json"}
    assert out.splitlines()[1].split()[:2] == ["cats", "3"]  # called by its folder's name


def test_compare_puts_two_bundles_side_by_side(show: Show, tree: Path, bundle: Path, tmp_path: Path) -> None:
    other = shutil.copytree(bundle, tmp_path / "other.gconet")
    code, out, _ = show(tree, "--compare", other)
    assert code == 0
    document = json.loads((tmp_path / "out/show.json").read_text("utf-8"))
    first, second = document["bundles"]
    assert (first["bundle"], second["bundle"]) == (str(bundle), str(other))
    assert first["d"] == second["d"]  # of the same network
    assert "mean squared distance" in document["definition"]
    assert out.count(f"{first['d']:.4f}") >= 2
    with Image.open(tmp_path / "out/space.png") as both:
        assert both.width > 1.8 * both.height


def test_a_bundle_is_not_compared_with_itself(show: Show, tree: Path, bundle: Path, tmp_path: Path) -> None:
    code, out, err = show(tree, "--compare", bundle)
    assert (code, out) == (2, "")
    assert "is the bundle itself" in err
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_one_line(show: Show, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    code, out, err = show(tree)
    assert (code, out) == (2, "")
    assert err == f"gconet: cannot write {tmp_path / 'out'}: {tmp_path / 'out'} is no folder; choose another --out\n"


def test_few_points_are_told_in_a_line_and_skipped(show: Show, tree: Path, tmp_path: Path) -> None:
    for name in ("cats/b.png", "cats/<b>&.png", "more/été/b.png", "more/été/c.png"):
        (tree / name).unlink()
    (tree / "more/été/a.png").write_bytes((tree / "cats/a.png").read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/space.png").write_bytes(b"of other groups")
    code, out, err = show(tree, "--overwrite")
    assert code == 0
    assert "space.png" not in out
    assert err == "gconet: no space.png: a t-SNE needs at least 4 groups and sub-groups whose consensus differs\n"
    assert files(tmp_path / "out") == {"cats/sheet.png", "more/été/sheet.png", "index.html", "show.json"}


def test_columns_are_limited_but_the_answer_is_the_whole_groups(bundle: Path, tree: Path) -> None:
    detector = gr.load(bundle, threads=1)
    (group,) = find_groups([tree / "cats"])
    done: list[int] = []
    few = look_at(detector, group, Scope(2, 4000, 2), done.append)
    assert [photo.path.name for photo in few.photos] == [path.name for path in group.photos[:2]]
    assert (few.count, few.name) == (3, "cats")
    assert sum(done) == 9
    assert len(few.points.parts) == 2  # of two photos, and of the one that is left
    np.testing.assert_array_equal(few.points.whole, detector.consensus(group.photos))
    np.testing.assert_array_equal(few.points.parts[1], detector.consensus(group.photos[2:]))
    for photo, saliency, attention in zip(
        few.photos, detector.detect(group.photos), detector.attention(group.photos), strict=False
    ):
        np.testing.assert_array_equal(photo.saliency, saliency.clip(0, 1))
        np.testing.assert_array_equal(photo.attention, attention)


def test_folders_whose_names_are_no_text_are_shown(show: Show, tree: Path, tmp_path: Path) -> None:
    odd = (tree / "cats").rename(tree / "\udcff\n")
    code, out, err = show(tree)
    assert (code, err) == (0, "")
    assert files(tmp_path / "out") >= {"space.png", f"{odd.name}/sheet.png"}
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["more/été", "\\udcff"]


@pytest.mark.parametrize("name", ["cats/sheet.png", "index.html", "space.png", "show.json"])
def test_files_that_exist_are_replaced_only_with_overwrite(name: str, show: Show, tree: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "out" / name
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"precious")
    code, out, err = show(tree)
    assert (code, out) == (2, "")
    assert f"{earlier} exists already" in err
    assert "--overwrite" in err
    assert files(tmp_path / "out") == {name}
    assert show(tree, "--overwrite")[0] == 0
    assert earlier.read_bytes() != b"precious"


def test_a_bad_photo_leaves_nothing_behind_unless_it_is_to_be_left_out(show: Show, tree: Path, tmp_path: Path) -> None:
    bad = tree / "more/été/b.png"
    bad.write_bytes(bad.read_bytes()[:400])
    code, out, err = show(tree)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert str(bad) in err
    assert files(tmp_path) - {name for name in files(tmp_path) if name.startswith("photos/")} == set()
    code, out, err = show(tree, "--skip-unreadable")
    assert code == 0
    assert err.startswith(f"gconet: left out: {bad}")
    assert json.loads((tmp_path / "out/show.json").read_text())["bundles"][0]["groups"][1]["subgroups"] == 2


def test_a_photo_is_never_replaced(show: Show, tree: Path, tmp_path: Path) -> None:
    (tree / "cats/a.png").rename(tree / "cats/sheet.png")
    (tmp_path / "out").symlink_to(tree)
    code, _, err = show(tree, "--overwrite")
    assert code == 2
    assert "would replace a photo" in err


def test_groups_of_one_name_are_refused(show: Show, tree: Path) -> None:
    shutil.copytree(tree / "cats", tree / "more/cats")
    code, _, err = show(tree / "cats", tree / "more/cats")
    assert code == 2
    assert "would share" in err


@pytest.mark.parametrize(
    ("arguments", "mention"),
    [
        (["absent"], "no photo or folder at absent"),
        ([".", "--size", "5000"], "--size"),
        ([".", "--columns", "0"], "--columns"),
        ([".", "--subgroup", "x"], "--subgroup"),
        ([], "PHOTOS"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], mention: str, show: Show) -> None:
    code, out, err = show(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert mention in err


def test_missing_libraries_name_the_extra_before_anything_is_done(
    show: Show, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, out, err = show(tree)
    assert (code, out) == (2, "")
    assert err == "gconet: gconet show needs sklearn: pip install 'gconet-deploy[pictures]'\n"
    assert not (tmp_path / "out").exists()
