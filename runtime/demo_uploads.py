"""What a visitor of the demo page drops on it: which files become photos of the group, and what is said of the others.

Names of uploaded files are only ever shown, never used as paths: photos are kept as `1`, `2`, … in the visit's folder.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from gconet.runtime.errors import PhotoError
from gconet.runtime.paths import reason
from gconet.runtime.photos import read_photo

LONGEST_NAME = 60  # letters of a file's name that are shown


@dataclass(frozen=True)
class Limits:
    """How much a visitor may ask of this machine: photos of a group, pixels and megabytes (10⁶ bytes) of each."""

    photos: int = 16
    pixels: int = 24_000_000
    megabytes: float = 20.0

    @property
    def bytes(self) -> int:
        """The largest file."""
        return int(self.megabytes * 1e6)

    def sentence(self) -> str:
        """What the page says of them."""
        return (
            f"Up to {self.photos} photos, each of up to {self.megabytes:g} MB and {self.pixels / 1e6:g} megapixels: "
            "JPEG, PNG, WebP, BMP or TIFF."
        )


@dataclass(frozen=True)
class Upload:
    """A photo that a visitor gave: where it is kept, and what it is called on the page, unlike all others."""

    path: Path
    label: str

    @property
    def slug(self) -> str:
        """A plain name for files made of it: number, and the label's letters, digits, dots and dashes."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", self.label.rsplit(".", 1)[0]).strip("-.")
        return f"{int(self.path.name):02d}-{plain or 'photo'}"


def accept_uploads(
    files: Sequence[Path], folder: Path, present: Collection[Upload], limits: Limits
) -> tuple[list[Upload], list[str]]:
    """Take the files that are photos into a visitor's folder.

    Each is decoded once, one after the other, so that what is truncated is noticed now.

    Parameters
    ----------
    files : as uploaded; they are copied.
    present : photos that are there already.

    Returns
    -------
    The new photos, and a line for each file that is none, is too large, or finds no more room in the group or on the
    disk.
    """
    taken: list[Upload] = []
    refused: list[str] = []
    number = max((int(upload.path.name) for upload in present), default=0)
    for file in files:
        name = shown_name(file)
        if len(present) + len(taken) >= limits.photos:
            refused.append(f"{name}: left out, a group on this page has at most {limits.photos} photos")
            continue
        problem = _problem(file, name, limits)
        if problem:
            refused.append(problem)
            continue
        number += 1
        copy = folder / str(number)
        try:
            shutil.copyfile(file, copy)
        except OSError as error:
            copy.unlink(missing_ok=True)
            refused.append(f"{name} cannot be kept on this machine ({reason(error)}): upload it again later")
            continue
        taken.append(Upload(copy, _unused(name, {upload.label for upload in (*present, *taken)})))
    return taken, refused


def shown_name(file: Path) -> str:
    """A file's name as it may be shown: one line, not endless."""
    name = "".join(letter if letter.isprintable() else "?" for letter in file.name)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 :]}"


def _problem(file: Path, name: str, limits: Limits) -> str | None:
    """Why a file cannot be used, under the name that the visitor knows."""
    try:
        size = file.stat().st_size
        if size > limits.bytes:
            return f"{name} has {size / 1e6:.1f} MB, more than {limits.megabytes:g}: make it smaller or leave it out"
        read_photo(file, limits.pixels)
    except PhotoError as error:
        return str(error).replace(str(file), name)
    except OSError:
        return f"{name} is gone from this machine: upload it again"
    return None


def _unused(name: str, labels: Collection[str]) -> str:
    """The name, with a number behind where another photo has it already."""
    label, count = name, 1
    while label in labels:
        count += 1
        label = f"{name} ({count})"
    return label
