"""Reading photos of every colour mode and orientation, refusing what is no photo, sorting paths into groups."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import EpsImagePlugin, ExifTags, Image

from gconet.runtime.errors import PhotoError
from gconet.runtime.photos import MAX_PIXELS, Group, find_groups, read_photo
from gconet.runtime.preprocess import Photo

RGB = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
GREY = RGB[..., 0]
ALPHA = RGB[..., 1]
INDEX = GREY % 4
DEEP_GREY = (GREY * 257.0 + np.linspace(-128, 128, GREY.size).reshape(GREY.shape)).clip(0, 65535).astype(np.uint16)
PALETTE = np.array([[250, 10, 20], [0, 128, 0], [3, 2, 1], [90, 80, 200]], np.uint8)


def palette_image() -> Image.Image:
    image = Image.fromarray(INDEX).convert("P")
    image.putdata(INDEX.ravel().tolist())
    image.putpalette(PALETTE.ravel().tolist())
    return image


def in_three_channels(grey: NDArray[np.uint8]) -> Photo:
    return np.repeat(grey[..., None], 3, axis=2)


COLOUR_MODES: dict[str, tuple[Image.Image, Photo]] = {
    "RGB": (Image.fromarray(RGB), RGB),
    "1x1": (Image.fromarray(RGB[:1, :1]), RGB[:1, :1]),
    "grey": (Image.fromarray(GREY), in_three_channels(GREY)),
    "grey and alpha": (Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), in_three_channels(GREY)),
    "RGBA": (Image.fromarray(np.dstack([RGB, ALPHA])), RGB),
    "palette": (palette_image(), PALETTE[INDEX]),
    "bilevel": (Image.fromarray(GREY > 127), in_three_channels(np.where(GREY > 127, 255, 0).astype(np.uint8))),
    "16-bit grey": (Image.fromarray(DEEP_GREY), in_three_channels(GREY)),
}


@pytest.mark.parametrize("mode", COLOUR_MODES)
def test_every_colour_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    image, expected = COLOUR_MODES[mode]
    image.save(tmp_path / "photo.png")
    photo = read_photo(tmp_path / "photo.png")
    assert photo.dtype == np.uint8
    np.testing.assert_array_equal(photo, expected)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_grey_of_either_byte_order_becomes_rgb(order: str, tmp_path: Path) -> None:
    Image.fromarray(DEEP_GREY.astype(order)).save(tmp_path / "photo.tif")
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.tif"), in_three_channels(GREY))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_of_32_bits_is_refused(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    Image.fromarray(GREY.astype(kind)).save(path)
    assert "32 bits" in assert_refused(path)


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (16, 8), (200, 30, 60)).convert("CMYK").save(path, quality=100)
    photo = read_photo(path)
    assert photo.shape == (8, 16, 3)
    assert np.abs(photo.astype(int) - (200, 30, 60)).max() <= 2  # JPEG's own rounding


def test_a_transparent_palette_is_read_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    palette_image().save(tmp_path / "photo.png", transparency=b"\x00\x80\xff\xff")
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.png"), PALETTE[INDEX])
    assert not recwarn.list


TURNS: dict[int, Callable[[Photo], Photo]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(orientation: int, suffix: str, tmp_path: Path) -> None:
    plain, tagged = tmp_path / f"plain{suffix}", tmp_path / f"tagged{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(RGB).save(plain)
    Image.fromarray(RGB).save(tagged, exif=exif)
    stored = np.asarray(Image.open(plain))
    np.testing.assert_array_equal(read_photo(tagged), TURNS[orientation](stored))


def test_a_photo_that_may_not_be_read_says_why_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (4, 4)).save(path)

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PhotoError) as refusal:
        read_photo(path)
    assert str(refusal.value) == f"{path} cannot be read (Permission denied): replace it or leave it out"


def test_an_odd_exif_tag_beside_the_orientation_does_no_harm(tmp_path: Path) -> None:
    entries = b"\x00\x01\x02\x00\x04\x00\x00\x00abc\x00"  # ImageWidth, as text
    entries += b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"  # Orientation 6
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00" + entries + bytes(4)
    Image.fromarray(RGB).save(tmp_path / "photo.jpg", exif=exif)
    assert read_photo(tmp_path / "photo.jpg").shape == (7, 5, 3)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB.repeat(20, 0).repeat(20, 1)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"shopping list: apples", jpeg()[:-200], jpeg()[:30], b"\x89PNG\r\n\x1a\n" + bytes(100)],
    ids=["empty", "text", "truncated JPEG", "JPEG cut in its header", "PNG of zeros"],
)
def test_what_is_no_whole_photo_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert_refused(path)


@pytest.mark.parametrize("name", ["absent.jpg", "folder", "n" * 300 + ".jpg"], ids=["absent", "folder", "long name"])
def test_a_path_that_is_no_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert_refused(tmp_path / name)


@pytest.mark.parametrize("times", [1, 3], ids=["above the limit", "above Pillow's own"])
def test_a_decompression_bomb_is_refused_without_a_warning(
    times: int, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "photo.png"
    Image.new("1", (10_000, times * MAX_PIXELS // 10_000 + 1)).save(path)
    assert "too many pixels" in assert_refused(path)
    assert not recwarn.list


@pytest.mark.parametrize("file_format", ["EPS", "GIF", "PPM", "ICO"])
def test_other_formats_are_refused_whatever_their_suffix(
    file_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> None:
        pytest.fail("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    path = tmp_path / "photo.jpg"
    Image.fromarray(RGB).save(path, file_format)
    assert "is not a photo" in assert_refused(path)


def test_a_photo_under_a_wrong_suffix_is_read(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "photo.jpg", "PNG")
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.jpg"), RGB)


def assert_refused(path: Path) -> str:
    """The error is typed, one line, and names the path; return its message."""
    with pytest.raises(PhotoError) as caught:
        read_photo(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_two_threads_decode_at_once_and_leave_the_warning_filters_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = tmp_path / "first.png", tmp_path / "second.png"
    for path in paths:
        Image.fromarray(RGB).save(path)
    both_are_in = threading.Barrier(2, timeout=10)
    convert, before, within = Image.Image.convert, list(warnings.filters), []

    def convert_together(image: Image.Image, mode: str) -> Image.Image:
        both_are_in.wait()
        within.append(list(warnings.filters))
        return convert(image, mode)

    monkeypatch.setattr(Image.Image, "convert", convert_together)
    with ThreadPoolExecutor(2) as threads:
        for photo in threads.map(read_photo, paths):
            np.testing.assert_array_equal(photo, RGB)
    assert [*within, list(warnings.filters)] == [before] * 3


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two groups below a folder, one of them nested, among files that are no photos and hidden ones."""
    names = ["cats/b.JPG", "cats/a.png", "cats/notes.txt", "cats/.hidden.jpg", ".cache/c.jpg", "more/été 1/ü ñ.webp"]
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def test_a_folder_of_folders_is_many_groups_and_the_tree_is_mirrored(tree: Path) -> None:
    assert find_groups([tree]) == [
        Group(Path("cats"), (tree / "cats/a.png", tree / "cats/b.JPG")),
        Group(Path("more/été 1"), (tree / "more/été 1/ü ñ.webp",)),
    ]


def test_a_folder_of_photos_is_one_group_at_the_top(tree: Path) -> None:
    assert find_groups([str(tree / "cats")]) == [Group(Path(), (tree / "cats/a.png", tree / "cats/b.JPG"))]


def test_several_folders_keep_their_names(tree: Path) -> None:
    cats, more = find_groups([tree / "cats", tree / "more"])
    assert cats.folder == Path("cats")
    assert more.folder == Path("more/été 1")


def test_photos_above_and_below_are_groups_of_their_own(tree: Path) -> None:
    (tree / "top.bmp").touch()
    assert [group.folder for group in find_groups([tree])] == [Path(), Path("cats"), Path("more/été 1")]


def test_photos_named_one_by_one_are_one_group_in_the_order_given(tree: Path) -> None:
    photos = tree / "more/été 1/ü ñ.webp", tree / "cats/b.JPG", tree / "cats/a.png"
    assert find_groups(photos) == [Group(Path(), photos)]


def test_photos_named_beside_a_folder_come_first_as_their_own_group(tree: Path) -> None:
    loose, folder = find_groups([tree / "cats", tree / "more/été 1/ü ñ.webp"])
    assert loose == Group(Path(), (tree / "more/été 1/ü ñ.webp",))
    assert folder.folder == Path("cats")


@pytest.mark.parametrize("name", ["absent", "photos/.cache/empty", "x" * 300], ids=["absent", "empty", "long name"])
def test_a_missing_or_empty_folder_is_refused_by_name(name: str, tree: Path) -> None:
    (tree / ".cache/empty").mkdir()
    (tree / ".cache/empty/notes.txt").touch()
    path = tree.parent / name
    with pytest.raises(PhotoError) as caught:
        find_groups([tree, path])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_photos_that_would_share_a_map_are_refused(tree: Path) -> None:
    (tree / "cats/a.jpg").touch()
    with pytest.raises(PhotoError, match=r"a\.jpg and .*a\.png would share one map"):
        find_groups([tree])


def test_folders_of_the_same_name_whose_photos_would_share_a_map_are_refused(tree: Path) -> None:
    namesake = tree / "more/cats"
    namesake.mkdir()
    (namesake / "a.jpg").touch()
    with pytest.raises(PhotoError, match="would share one map"):
        find_groups([tree / "cats", namesake])


def test_linked_folders_are_followed_but_not_in_circles(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere/dogs").mkdir(parents=True)
    (tmp_path / "elsewhere/dogs/d.jpg").touch()
    (tmp_path / "elsewhere/back").symlink_to(tree)
    (tree / "cats/itself").symlink_to(".")
    (tree / "cats/above").symlink_to("..")
    (tree / "cats/higher").symlink_to(tmp_path)
    (tree / "cats/nowhere").symlink_to(tree / "absent")
    (tree / "linked").symlink_to(tmp_path / "elsewhere")
    assert [group.folder.as_posix() for group in find_groups([tree])] == ["cats", "linked/dogs", "more/été 1"]


def test_a_folder_that_cannot_be_read_is_refused_by_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def deny(path: str) -> object:
        if str(path) == str(tree / "cats"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(PhotoError, match="cats: Permission denied"):
        find_groups([tree])
