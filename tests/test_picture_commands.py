"""`gconet cutout` and `gconet thumbnail` as a user meets them: files, lines, exit codes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gconet_terminal import Gconet, assert_one_line_error, content, fill_the_disk_at
from PIL import Image
from synthetic_objects import ellipses, map_of, photo_of

import gconet.runtime as gr
from gconet.runtime.map_source import read_map
from gconet.runtime.photos import read_photo
from gconet.runtime.preprocess import Photo, to_bytes

pytest.importorskip("cv2", reason="cut-outs need OpenCV: pip install 'gconet-deploy[pictures]'")

COMMANDS = ("cutout", "thumbnail")
NAMES = ("ball/a.png", "ball/b c.jpg", "more/été/a.webp")  # nothing is found in the last one


@pytest.fixture
def bundle(tiny_bundle: Callable[[str, str], Path]) -> Path:
    return tiny_bundle("onnxruntime", "fp32")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two groups of photos with one object each."""
    for index, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo_of(ellipses(90, 120, (0.4, 0.5, 0.15 + 0.05 * index, 0.2)), seed=index)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def maps(tmp_path: Path, photos: Path) -> Path:
    """Maps of them, as `gconet detect` would write them; the last one is black."""
    for index, name in enumerate(NAMES):
        path = (tmp_path / "maps" / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        saliency = map_of(ellipses(90, 120, (0.4, 0.5, 0.15 + 0.05 * index, 0.2)), 4) * (index < 2)
        Image.fromarray(to_bytes(saliency)).save(path)
    assert photos.is_dir()
    return tmp_path / "maps"


def test_cutouts_mirror_the_tree_and_name_photos_without_an_object(gconet: Gconet, photos: Path, maps: Path) -> None:
    before = content(photos)
    outcome = gconet("cutout", photos, "--maps", maps, "--out", "out", "--jobs", "2")
    assert outcome.code == 0
    assert outcome.err == f"gconet: nothing found in {photos / NAMES[2]}: kept whole\n"
    assert outcome.out == "3 cut-outs of 2 groups in out; nothing found in 1 photo, kept whole\n"
    assert set(content(Path("out"))) == {"ball/a.png", "ball/b c.png", "more/été/a.png"}
    assert content(photos) == before
    for name in NAMES[:2]:
        photo, path = read_photo(photos / name), Path(name).with_suffix(".png")
        alpha = gr.cutout.cutout(photo, read_map(maps / path))
        assert alpha is not None
        with Image.open("out" / path) as picture:
            assert (picture.format, picture.mode) == ("PNG", "RGBA")
            np.testing.assert_array_equal(np.asarray(picture), gr.cutout.rgba(photo, alpha))
    whole = np.asarray(Image.open("out/more/été/a.png"))
    np.testing.assert_array_equal(whole[..., :3], read_photo(photos / NAMES[2]))
    assert (whole[..., 3] == 255).all()


def test_cutouts_run_a_bundle_as_detect_does(gconet: Gconet, bundle: Path, photos: Path) -> None:
    assert gconet("cutout", photos / "ball", "--bundle", bundle, "--threads", "1", "--format", "webp").code == 0
    group = [photos / name for name in NAMES[:2]]
    for path, saliency in zip(group, gr.load(bundle, threads=1).detect(group), strict=True):
        alpha = gr.cutout.cutout(read_photo(path), saliency)
        with Image.open(Path("cutouts") / f"{path.stem}.webp") as picture:
            assert picture.format == "WEBP"
            wanted = 255 if alpha is None else alpha
            np.testing.assert_array_equal(np.asarray(picture.convert("RGBA"))[..., 3], wanted)


def test_a_kept_consensus_is_cut_out_photo_by_photo(gconet: Gconet, bundle: Path, photos: Path) -> None:
    assert gconet("consensus", photos / "ball", "--bundle", bundle, "--out", "c.safetensors").code == 0
    both = gconet("cutout", photos / "ball", "--bundle", bundle, "--consensus", "c.safetensors", "--out", "both")
    one = gconet("cutout", photos / NAMES[0], "--bundle", bundle, "--consensus", "c.safetensors", "--out", "one")
    assert (both.code, one.code) == (0, 0)
    assert content(Path("one"))["a.png"] == content(Path("both"))["a.png"]


@pytest.mark.parametrize(("name", "colour"), [("white", (255, 255, 255)), ("#ff8800", (255, 136, 0))])
def test_cutouts_on_a_colour(name: str, colour: tuple[int, int, int], gconet: Gconet, photos: Path, maps: Path) -> None:
    assert gconet("cutout", photos / "ball", "--maps", maps / "ball", "--background", name).code == 0
    compare_composed(photos, maps, colour)


def test_cutouts_on_a_picture(gconet: Gconet, photos: Path, maps: Path) -> None:
    behind = np.random.default_rng(0).integers(0, 256, (50, 30, 3), np.uint8)
    Image.fromarray(behind).save("behind.png")
    assert gconet("cutout", photos / "ball", "--maps", maps / "ball", "--background", "behind.png").code == 0
    compare_composed(photos, maps, behind)


def compare_composed(photos: Path, maps: Path, background: tuple[int, int, int] | Photo) -> None:
    for name in NAMES[:2]:
        photo = read_photo(photos / name)
        alpha = gr.cutout.cutout(photo, read_map((maps / name).with_suffix(".png")))
        assert alpha is not None
        with Image.open(Path("cutouts") / f"{Path(name).stem}.png") as picture:
            assert picture.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(picture), gr.cutout.compose(photo, alpha, background))


def test_existing_pictures_are_replaced_only_with_overwrite(gconet: Gconet, photos: Path, maps: Path) -> None:
    arguments = ("cutout", photos, "--maps", maps, "--out", "out")
    Path("out/more/été").mkdir(parents=True)
    earlier = Path("out/more/été/a.png")
    earlier.write_bytes(b"precious")
    assert_one_line_error(gconet(*arguments), earlier, "--overwrite")
    assert content(Path()) == {str(earlier): b"precious"}
    assert gconet(*arguments, "--overwrite").code == 0
    first = earlier.stat()
    again = gconet(*arguments, "--skip-existing")
    assert (again.code, again.out) == (0, "0 cut-outs of 0 groups in out; 2 groups skipped, with cut-outs already\n")
    shutil.rmtree("out/ball")
    assert gconet(*arguments, "--skip-existing").out == (
        "2 cut-outs of 1 group in out; 1 group skipped, with cut-outs already\n"
    )
    assert earlier.stat() == first


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_photo_leaves_nothing_of_its_group(command: str, gconet: Gconet, photos: Path, maps: Path) -> None:
    bad = photos / NAMES[2]
    bad.write_bytes(bad.read_bytes()[:60])
    outcome = gconet(command, photos, "--maps", maps, "--out", "out")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert str(bad) in outcome.err
    assert "1 group is done; pass --overwrite, or --skip-existing to go on" in outcome.err
    assert {Path(name).stem for name in content(Path("out"))} == {"a", "b c"}
    assert len(content(Path("out"))) == 2
    outcome = gconet(command, photos, "--maps", maps, "--out", "rest", "--skip-unreadable")
    assert (outcome.code, f"left out: {bad}" in outcome.err) == (0, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_read_is_never_replaced(command: str, gconet: Gconet, photos: Path, maps: Path) -> None:
    before = content(maps), content(photos)
    own = ("--format", "png", "--overwrite")
    if command == "cutout":
        assert_one_line_error(gconet(command, photos, "--maps", maps, "--out", maps, *own), "is read for it")
        assert_one_line_error(gconet(command, photos / "ball", "--maps", maps / "ball", "--out", photos / "ball", *own),
                              "would replace a photo")  # fmt: skip
        shutil.copy(photos / NAMES[0], "a.png")
        assert_one_line_error(gconet(command, photos / "ball", "--maps", maps / "ball", "--out", ".", *own,
                                     "--background", "a.png"), "is read for it")  # fmt: skip
    else:
        for folder in (maps, photos):
            (Path("links") / folder.name).mkdir(parents=True)
            (Path("links") / folder.name / "1x1-256").symlink_to(folder / "ball")
            outcome = gconet(command, photos / "ball", "--maps", maps / "ball", "--out", f"links/{folder.name}", *own)
            assert_one_line_error(outcome, "would replace")
    assert (content(maps), content(photos)) == before


def test_a_report_replaces_nothing_that_is_read(gconet: Gconet, photos: Path, maps: Path) -> None:
    before = content(maps), content(photos)
    for report, what in (
        (photos / NAMES[0], "a photo"),
        (maps / NAMES[0], "a file that is read for it"),
        (maps, "a folder"),
    ):
        outcome = gconet("thumbnail", photos, "--maps", maps, "--json", report)
        assert_one_line_error(outcome, f"the report {report} would replace {what}: choose another --json")
    assert content(Path()) == {}
    assert (content(maps), content(photos)) == before


@pytest.mark.parametrize(("command", "file_format"), [("cutout", "webp"), ("thumbnail", "webp"), ("thumbnail", "jpg")])
def test_pictures_too_long_for_their_format_are_one_line(
    command: str, file_format: str, gconet: Gconet, tmp_path: Path
) -> None:
    for folder in ("photos", "maps"):
        (tmp_path / folder).mkdir()
        Image.new("L", (65_535, 2), 255).save(tmp_path / folder / "long.png")
    source = tmp_path / "photos", "--maps", tmp_path / "maps"
    overlay = ("--overlay",) * (command == "thumbnail")
    outcome = gconet(command, *source, *overlay, "--format", file_format)
    assert_one_line_error(outcome, f"long.{file_format}", "pass --format png")
    assert content(Path()) == {}
    assert gconet(command, *source, *overlay, "--format", "png").code == 0


def test_a_note_is_one_line_whatever_the_photo_is_called(gconet: Gconet, photos: Path, maps: Path) -> None:
    odd = "two\nlines\x1b[31m"
    (photos / NAMES[2]).rename(photos / "more/été" / f"{odd}.webp")
    (maps / NAMES[2]).with_suffix(".png").rename(maps / "more/été" / f"{odd}.png")
    outcome = gconet("cutout", photos / "more", "--maps", maps / "more")
    assert (outcome.code, len(outcome.err.splitlines())) == (0, 1)
    assert "two lines\\x1b[31m.webp: kept whole" in outcome.err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_map_is_told_before_anything_is_written(
    command: str, gconet: Gconet, photos: Path, maps: Path
) -> None:
    missing = (maps / NAMES[2]).with_suffix(".png")
    missing.unlink()
    outcome = gconet(command, photos, "--maps", maps)
    assert_one_line_error(outcome, f"no map at {missing}", "gconet detect PHOTOS --out")
    assert content(Path()) == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_map_of_another_size_and_one_that_is_none_are_one_line(
    command: str, gconet: Gconet, photos: Path, maps: Path
) -> None:
    Image.new("L", (30, 20), 255).save(maps / "ball/b c.png")
    outcome = gconet(command, photos / "ball", "--maps", maps / "ball")
    assert_one_line_error(outcome, photos / NAMES[1], "30×20", "120×90")
    (maps / "ball/b c.png").write_bytes(b"no map")
    assert_one_line_error(gconet(command, photos / "ball", "--maps", maps / "ball"), "as a map: ", "b c.png")
    assert content(Path()) == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_out_that_cannot_be_written_is_one_line(command: str, gconet: Gconet, photos: Path, maps: Path) -> None:
    Path("out").write_bytes(b"a file")
    assert_one_line_error(gconet(command, photos, "--maps", maps, "--out", "out"), "cannot write out")
    assert content(Path()) == {"out": b"a file"}


def test_a_full_disk_leaves_no_part_of_a_group(
    gconet: Gconet, photos: Path, maps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_the_disk_at("b c", monkeypatch)
    outcome = gconet("cutout", photos, "--maps", maps, "--out", "out")
    assert_one_line_error(outcome, "No space left on device", "out/ball/b c.png")
    assert content(Path()) == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_without_opencv_the_extra_is_named(
    command: str, gconet: Gconet, photos: Path, maps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert_one_line_error(gconet(command, photos, "--maps", maps), "pip install 'gconet-deploy[pictures]'")
    assert content(Path()) == {}


@pytest.mark.parametrize(
    ("arguments", "mention"),
    [
        (["cutout", "--background", "nocolour"], "nocolour is no colour"),
        (["cutout", "--background", "absent.jpg"], "absent.jpg is no colour"),
        (["cutout", "--background", "#11223344"], "has an opacity"),
        (["cutout", "--background", "rgb(300,0,0)"], "is no colour"),
        (["cutout", "--background", "text.txt"], "text.txt is not a photo"),
        (["cutout", "--threshold", "median"], "--threshold"),
        (["cutout", "--format", "jpg"], "--format"),
        (["cutout", "--jobs", "0"], "--jobs"),
        (["cutout", "--consensus", "c", "--maps", "m"], "not allowed with"),
        (["thumbnail", "--aspect", "4x3"], "'4x3' is not an aspect ratio"),
        (["thumbnail", "--aspect", "4:0"], "'4:0' is not an aspect ratio"),
        (["thumbnail", "--aspect", "1000:1"], "no thumbnail has the aspect 1000:1"),
        (["thumbnail", "--size", "100000"], "sizes go up to 8192"),
        (["thumbnail", "--fill", "nocolour"], "'nocolour' is not a colour"),
        (["thumbnail", "--fill", "rgb(300,0,0)"], "is not a colour"),
        (["thumbnail", "--fill", "#11223344"], "'#11223344' is not a colour"),
        (["thumbnail", "--fit", "stretch"], "--fit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], mention: str, gconet: Gconet, photos: Path
) -> None:
    Path("text.txt").write_text("no picture")
    assert_one_line_error(gconet(arguments[0], photos, *arguments[1:]), mention)
    assert set(content(Path())) == {"text.txt"}


def test_thumbnails_of_every_shape_mirror_the_tree(gconet: Gconet, photos: Path, maps: Path) -> None:
    shapes = ("--aspect", "1:1", "--aspect", "4:3", "--size", "64", "--aspect", "1:1")
    outcome = gconet("thumbnail", photos, "--maps", maps, "--out", "out", *shapes, "--overlay", "--json", "boxes.json")
    assert outcome.code == 0
    assert outcome.err == f"gconet: nothing found in {photos / NAMES[2]}: its middle is shown\n"
    assert outcome.out == "6 thumbnails of 2 groups in out; nothing found in 1 photo, the middle shown\n"
    stems = [Path(name).with_suffix(".jpg").as_posix() for name in NAMES]
    sizes = {"1x1-64": (64, 64), "4x3-64": (64, 48), "1x1-64-overlay": (120, 90), "4x3-64-overlay": (120, 90)}
    assert set(content(Path("out"))) == {f"{folder}/{stem}" for folder in sizes for stem in stems}
    for folder, size in sizes.items():
        for stem in stems:
            with Image.open(Path("out") / folder / stem) as picture:
                assert (picture.format, picture.size) == ("JPEG", size)

    boxes = json.loads(Path("boxes.json").read_text())
    assert [(Path(row["photo"]).name, row["aspect"]) for row in boxes] == [
        (Path(name).name, aspect) for name in NAMES for aspect in ("1:1", "4:3")
    ]
    for row in boxes[:4]:
        (left, top, right, bottom), (inner_left, inner_top, inner_right, inner_bottom) = row["crop"], row["tight"]
        assert left <= inner_left < inner_right <= right
        assert top <= inner_top < inner_bottom <= bottom
    assert boxes[4]["tight"] is None


def test_objects_that_have_no_room_are_named(gconet: Gconet, tmp_path: Path) -> None:
    mask = ellipses(60, 240, (0.15, 0.5, 0.1, 0.4), (0.9, 0.5, 0.05, 0.2))
    for folder, picture in (("photos", photo_of(mask)), ("maps", to_bytes(map_of(mask, 2)))):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "two.png")
    outcome = gconet("thumbnail", tmp_path / "photos", "--maps", tmp_path / "maps", "--fit", "crop")
    assert outcome.code == 0
    assert "1 object of" in outcome.err
    assert "two.png left out of 1:1" in outcome.err
    assert outcome.out == "1 thumbnail of 1 group in thumbnails; objects left out of 1 thumbnail\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_leaves_no_half_group(
    command: str, gconet: Gconet, photos: Path, maps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gconet.runtime.picture_batch.save_picture", interrupt)
    outcome = gconet(command, photos, "--maps", maps, "--out", "out")
    assert (outcome.code, outcome.err) == (130, "gconet: interrupted\n")
    assert content(Path()) == {}
