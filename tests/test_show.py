"""`gconet show`: what it writes, what it refuses, and that its pictures show what they say."""

from __future__ import annotations

import io
import json
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
from gconet.runtime.preprocess import FloatArray, Photo
from gconet.runtime.show_group import GroupPoints, Scope, ShownGroup, ShownPhoto, look_at
from gconet.runtime.show_pictures import (
    heat,
    overlay,
    relative_attention,
    shrink,
    shrink_map,
    upsample_attention,
)
from gconet.runtime.show_sheet import CELL_HEIGHT, CELL_WIDTH, ROWS, draw_sheet
from gconet.runtime.show_space import Panel, draw_space, embed, perplexity_of

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


def shown_photo(name: str, picture: Photo, saliency: FloatArray, attention: FloatArray | None = None) -> ShownPhoto:
    if attention is None:
        attention = np.full((4, 4), 1 / 16, np.float32)
    return ShownPhoto(Path(name), picture, saliency, attention)


def shown_group(*photos: ShownPhoto, name: str = "things", count: int | None = None) -> ShownGroup:
    points = GroupPoints(name, np.ones(3, np.float32), np.ones((1, 3), np.float32), ())
    return ShownGroup(name, len(photos) if count is None else count, photos, points)


def test_a_tree_gets_sheets_a_gallery_a_space_and_numbers(show: Show, tree: Path, bundle: Path, tmp_path: Path) -> None:
    code, out, err = show(tree)
    assert (code, err) == (0, "")
    expected = {"cats/sheet.png", "more/été/sheet.png", "index.html", "space.png", "show.json"}
    assert files(tmp_path / "out") == expected
    assert "2 sheets, index.html (" in out
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


def test_few_points_are_told_in_a_line_and_skipped(show: Show, tree: Path, tmp_path: Path) -> None:
    for name in ("cats/b.png", "cats/<b>&.png", "more/été/b.png", "more/été/c.png"):
        (tree / name).unlink()
    (tree / "more/été/a.png").write_bytes((tree / "cats/a.png").read_bytes())
    code, _, err = show(tree)
    assert code == 0
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


def test_a_sheet_has_a_column_for_each_photo_and_four_rows(rng: np.random.Generator) -> None:
    def photo(height: int, width: int) -> ShownPhoto:
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        return shown_photo("p.jpg", picture, rng.random((height, width), np.float32))

    one, three = (draw_sheet(shown_group(*[photo(300, 400)] * count, name="x" * 40)) for count in (1, 3))
    assert one.height == three.height > len(ROWS) * CELL_HEIGHT
    assert three.width >= 3 * CELL_HEIGHT * 4 / 3
    wide = draw_sheet(shown_group(*[photo(100, 2000)] * 5))
    assert 5 * CELL_WIDTH < wide.width < 5 * CELL_WIDTH + 200


def test_a_sheets_rows_show_photo_attention_map_and_overlay() -> None:
    picture = np.full((144, 144, 3), (200, 100, 40), np.uint8)
    saliency = np.zeros((144, 144), np.float32)
    saliency[:, 72:] = 1
    attention = np.zeros((4, 4), np.float32)
    attention[0, 0] = 1
    sheet = np.asarray(draw_sheet(shown_group(shown_photo("p.jpg", picture, saliency, attention)))).astype(int)
    column = np.flatnonzero((sheet == (200, 100, 40)).all(-1).any(0))
    rows = np.flatnonzero((sheet == (200, 100, 40)).all(-1).any(1))
    left, top = column[0], rows[0]
    cells = [sheet[top + row * (CELL_HEIGHT + 6) :][:144, left : left + 144] for row in range(4)]
    assert (cells[0] == picture).all()
    lightness = cells[1].sum(-1)
    assert lightness[:16, :16].min() > lightness[90:, 90:].max()  # its one cell, and no other
    assert (cells[2][:, :70] == 0).all()
    assert (cells[2][:, 74:] == 255).all()
    assert (cells[3][:, 76:] == picture[:, 76:]).all()
    assert np.abs(cells[3][:, :68] - picture[:, :68] * 0.25).max() <= 1
    assert (cells[3][:, 70:74] == 255).all(-1).any()  # the contour: white,
    assert (cells[3][:, 70:74] == 0).all(-1).any()  # and black


def test_sheets_say_when_photos_are_left_out_and_survive_odd_names(rng: np.random.Generator) -> None:
    picture, saliency = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), np.zeros((60, 80), np.float32)
    for name in ("", "a\n\x00b.jpg", "n" * 300, "日本", "\udcff.jpg", "<i>"):
        assert draw_sheet(shown_group(shown_photo(name, picture, saliency), name=name or "x")).width > 0
    whole, part = (
        np.asarray(draw_sheet(shown_group(shown_photo("p", picture, saliency), count=count))) for count in (1, 9)
    )
    differs = np.flatnonzero((whole != part).any((1, 2)))
    assert differs.min() > 0
    assert differs.max() < 46  # only the title: "the first 1 of 9 photos; …"


def test_heat_maps_become_lighter_with_every_step() -> None:
    ramp = heat(np.linspace(0, 1, 256, dtype=np.float32)[None])[0].astype(float)
    lightness = ramp @ (0.2126, 0.7152, 0.0722)
    assert np.diff(lightness).min() > -0.6  # rounding to 8 bits
    assert lightness[-1] - lightness[0] > 150


def test_attention_is_upsampled_by_cells_not_by_corners() -> None:
    attention = np.zeros((14, 14), np.float32)
    attention[3, 9] = 0.5
    large = upsample_attention(attention, 280, 560)
    assert large.shape == (280, 560)
    row, column = np.unravel_index(large.argmax(), large.shape)
    assert 60 <= row < 80  # 3·20 … 4·20
    assert 360 <= column < 400
    assert (large >= 0).all()
    assert relative_attention(attention).max() == 1
    assert (relative_attention(np.full((2, 2), 0.25, np.float32)) == 1).all()
    assert (relative_attention(np.zeros((2, 2), np.float32)) == 0).all()


def test_photos_and_maps_are_made_small_alike(rng: np.random.Generator) -> None:
    photo = rng.integers(0, 256, (300, 1200, 3), dtype=np.uint8)
    assert shrink(photo, 480).shape == (120, 480, 3)
    assert shrink(photo, 2000) is photo
    assert shrink(photo[:1], 100).shape == (1, 100, 3)
    saliency = rng.random((300, 1200), np.float32)
    small = shrink_map(saliency, 120, 480)
    assert small.shape == (120, 480)
    assert small.mean() == pytest.approx(saliency.mean(), abs=1e-3)
    assert shrink_map(saliency, 600, 1200).shape == (600, 1200)


def test_a_map_below_the_contour_only_dims() -> None:
    photo = np.full((20, 20, 3), 100, np.uint8)
    assert (overlay(photo, np.full((20, 20), 0.4, np.float32)) == 55).all()


@pytest.mark.parametrize("count", [4, 5, 12, 40])
def test_the_space_of_a_few_points_is_laid_out_the_same_each_time(count: int, rng: np.random.Generator) -> None:
    vectors = rng.random((count, 16), np.float32)
    first, second = embed(vectors), embed(vectors)
    assert first is not None
    assert second is not None
    assert first.shape == (count, 2)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
    assert 1 <= perplexity_of(count) < count


def test_there_is_no_space_of_three_points_or_of_one_place(rng: np.random.Generator) -> None:
    assert embed(rng.random((3, 8), np.float32)) is None
    assert embed(np.repeat(rng.random((1, 8), np.float32), 9, axis=0)) is None
    assert perplexity_of(1000) == 30


def test_groups_that_are_apart_stay_apart_in_the_space(rng: np.random.Generator) -> None:
    centres = np.eye(3, 32)
    vectors = np.concatenate([centre + rng.normal(0, 0.01, (8, 32)) for centre in centres]).astype(np.float32)
    layout = embed(vectors)
    assert layout is not None
    distances = np.linalg.norm(layout[:, None] - layout[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(distances.argmin(1) // 8, np.arange(24) // 8)


def test_the_space_is_drawn_with_every_photo(rng: np.random.Generator) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255)]

    def group(index: int) -> GroupPoints:
        parts = (np.eye(8)[index] + rng.normal(0, 0.1, (2, 8))).astype(np.float32)
        marker = np.full((60, 90, 3), colours[index], np.uint8)
        return GroupPoints(f"$group_{index}$ \\x", parts.mean(0), parts, (marker, marker))

    panel = Panel("a title with 100 % and $", [group(index) for index in range(4)])
    picture = draw_space([panel])
    assert picture is not None
    assert draw_space([panel]) == picture
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    for colour in colours:
        assert (pixels == colour).all(-1).sum() > 500
