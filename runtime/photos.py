"""Finding and reading photos: groups are folders, any common format and colour mode becomes RGB."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from gconet.runtime.errors import PhotoError, one_line
from gconet.runtime.paths import kind_of, reason
from gconet.runtime.preprocess import Photo

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # whatever the suffix: EPS, for one, would be run by Ghostscript
MAX_PIXELS = 1024**3 // 4 // 3  # 256 MB as RGB; more is refused before it is decoded, as Pillow warns of by default
MAX_SIDE = 65535  # JPEG's own limit; longer rows would need far more memory for their map than for their pixels

# EXIF orientation -> what makes the photo upright. ImageOps.exif_transpose() also encodes the EXIF anew, which fails on
# photos with a single odd tag.
UPRIGHT: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Group:
    """Photos that share an object, and where their maps belong relative to the output folder."""

    folder: Path
    photos: tuple[Path, ...]


def read_photo(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Photo:
    """Read one photo as (H, W, 3) uint8 RGB, upright (EXIF orientation applied), transparency dropped.

    Parameters
    ----------
    max_pixels : photos of more are refused before they are decoded; at most MAX_PIXELS.

    Raises
    ------
    PhotoError
        If the file is missing, no photo, truncated, empty, absurdly large, or has more than 16 bits per channel.
    """
    path = Path(path)
    if kind_of(path, PhotoError) != "file":
        raise PhotoError(f"no photo at {path}")
    try:
        with path.open("rb") as file, _identify(file) as image:
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise Image.DecompressionBombError
            if min(image.size) < 1:
                raise ValueError(f"it has {image.width}×{image.height} pixels")
            if image.width * image.height > max_pixels:
                raise PhotoError(
                    f"{path} has {image.width}×{image.height} pixels, more than {max_pixels / 1e6:g} million: "
                    "make it smaller or leave it out"
                )
            image.load()  # some formats are upright from here on
            turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            upright = _in_8_bits(image if turn is None else image.transpose(turn), path, image.format)
            upright.info.pop("transparency", None)  # convert() would warn of dropping it
            return np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError as error:
        raise PhotoError(f"{path} is not a photo: replace it or leave it out") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{path} has too many pixels to be a photo: make it smaller or leave it out") from error
    except PhotoError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything: KeyError, AssertionError, OverflowError, …
        why = reason(error) if isinstance(error, OSError) else one_line(error)
        raise PhotoError(f"{path} cannot be read ({why}): replace it or leave it out") from error


def readable_groups(groups: Sequence[Group], report: Callable[[str], object]) -> list[Group]:
    """Groups without photos that cannot be read, and without groups that have no others; every photo is decoded.

    Parameters
    ----------
    report : called with a line for each photo that is left out.

    Raises
    ------
    PhotoError
        If none can be read.
    """

    def can_be_read(path: Path) -> bool:
        try:
            read_photo(path)
        except PhotoError as error:
            report(f"left out: {error}")
            return False
        return True

    readable = [replace(group, photos=tuple(filter(can_be_read, group.photos))) for group in groups]
    if not any(group.photos for group in readable):
        raise PhotoError("none of the photos can be read: replace them")
    return [group for group in readable if group.photos]


def as_array(photo: str | os.PathLike[str] | Photo, index: int) -> Photo:
    """A photo as (H, W, 3) uint8 RGB, read if it is a path; `index` names an array in errors.

    Raises
    ------
    PhotoError
        As for `read_photo`, and if an array is no such array.
    """
    if not isinstance(photo, np.ndarray):
        return read_photo(photo)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise PhotoError(f"photo {index} is {photo.dtype} {photo.shape}: an (H, W, 3) uint8 RGB array is wanted")
    return photo


def _identify(file: BinaryIO) -> Image.Image:
    """`Image.open` without its DecompressionBombWarning, which only a filter for the whole process could silence."""
    Image.init()
    start = file.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(start) is True:  # a string is why this Pillow lacks the format
            file.seek(0)
            return factory(file, "")
    raise UnidentifiedImageError


def _in_8_bits(image: Image.Image, path: Path, file_format: str | None) -> Image.Image:
    """16-bit grey scaled to 8, which convert() would saturate; what is wider has no known range."""
    if image.mode.startswith("I;16") or (image.mode, file_format) == ("I", "PNG"):  # the latter before Pillow 11
        return Image.fromarray(np.rint(np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise PhotoError(f"{path} has pixels of 32 bits (mode {image.mode}): save it with 8 or 16 bits per channel")
    return image


def find_groups(paths: Sequence[str | os.PathLike[str]]) -> list[Group]:
    """Sort arguments into groups.

    Photos named one by one are one group. A folder's photos are a group, and so are those of every folder below it,
    through symbolic links too; `Group.folder` mirrors the tree, under the folder's own name where several arguments are
    given.

    Raises
    ------
    PhotoError
        If a path does not exist, a folder cannot be read or holds no photo, or two photos of a group differ only in
        their suffix.
    """
    files, groups = [], []
    for path in map(Path, paths):
        kind = kind_of(path, PhotoError)
        if kind == "folder":
            groups += _groups_below(path, Path(path.resolve().name) if len(paths) > 1 else Path())
        elif kind == "file":
            files.append(path)
        else:
            raise PhotoError(f"no photo or folder at {path}")
    if files:
        groups.insert(0, Group(Path(), tuple(files)))
    taken: dict[Path, Path] = {}
    for group in groups:
        for photo in group.photos:
            other = taken.setdefault(group.folder / photo.stem, photo)
            if other is not photo and other == photo:
                raise PhotoError(f"{photo} is named twice: name it once")
            if other is not photo:
                raise PhotoError(f"{other} and {photo} would share one map: rename one of them")
    return groups


def _groups_below(root: Path, name: Path) -> list[Group]:
    groups = []
    for folder, subfolders, names in os.walk(root, onerror=_refuse, followlinks=True):
        subfolders[:] = sorted(
            subfolder
            for subfolder in subfolders
            if not subfolder.startswith(".") and not _leads_back(Path(folder, subfolder), root)
        )
        photos = tuple(
            Path(folder, file)
            for file in sorted(names)
            if Path(file).suffix.lower() in PHOTO_SUFFIXES and not file.startswith(".")
        )
        if photos:
            groups.append(Group(name / Path(folder).relative_to(root), photos))
    if not groups:
        raise PhotoError(f"no photos in {root} (looked for {', '.join(sorted(PHOTO_SUFFIXES))})")
    return groups


def _refuse(error: OSError) -> None:
    raise PhotoError(f"cannot look at {error.filename}: {error.strerror}") from error


def _leads_back(folder: Path, root: Path) -> bool:
    """Whether `folder` is a link to one that holds it, directly or through the links on the way from `root`."""
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    return any(above.resolve().is_relative_to(target) for above in folder.parents if above.is_relative_to(root))
