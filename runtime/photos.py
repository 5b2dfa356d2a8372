"""Finding and reading photos: groups are folders, any common format and colour mode becomes RGB."""

from __future__ import annotations

import os
import struct
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from gconet.runtime.errors import PhotoError
from gconet.runtime.preprocess import Photo

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

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
WARNING_FILTERS = threading.Lock()  # they belong to the process: two threads that change them would leave them changed


@dataclass(frozen=True)
class Group:
    """Photos that share an object, and where their maps belong relative to the output folder."""

    folder: Path
    photos: tuple[Path, ...]


def read_photo(path: str | os.PathLike[str]) -> Photo:
    """Read one photo as (H, W, 3) uint8 RGB, upright (EXIF orientation applied), transparency dropped.

    Raises
    ------
    PhotoError
        If the file is missing, no photo, truncated, or absurdly large.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise PhotoError(f"no photo at {path}")
        with WARNING_FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata, dropped transparency
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()  # some formats are upright from here on
                turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
                upright = image if turn is None else image.transpose(turn)
                if upright.mode.startswith("I"):  # 16-bit grey would saturate in convert()
                    upright = Image.fromarray(np.rint(np.asarray(upright) / 257).clip(0, 255).astype(np.uint8))
                return np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError as error:
        raise PhotoError(f"{path} is not a photo: replace it or leave it out") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PhotoError(f"{path} has too many pixels to be a photo: make it smaller or leave it out") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise PhotoError(f"{path} cannot be read ({error}): replace it or leave it out") from error


def find_groups(paths: Sequence[str | os.PathLike[str]]) -> list[Group]:
    """Sort arguments into groups.

    Photos named one by one are one group. A folder's photos are a group, and so are those of every folder below it;
    `Group.folder` mirrors the tree, under the folder's own name where several arguments are given.

    Raises
    ------
    PhotoError
        If a path does not exist, a folder holds no photo, or two photos of a group differ only in their suffix.
    """
    files, groups = [], []
    for path in map(Path, paths):
        try:
            is_folder, is_file = path.is_dir(), path.is_file()
        except OSError as error:
            raise PhotoError(f"cannot look at {path}: {error.strerror}") from error
        if is_folder:
            groups += _groups_below(path, Path(path.resolve().name) if len(paths) > 1 else Path())
        elif is_file:
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
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(subfolder for subfolder in subfolders if not subfolder.startswith("."))
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
