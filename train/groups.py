"""Groups of photos with masks, in the layout the field's data sets share: `images/<set>/<group>`, `gts/<set>/<group>`.

DUTS_class, CoCA, CoSOD3k and Cosal2015 come this way, with or without the level `<set>`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gconet.runtime.errors import GconetError, one_line
from gconet.runtime.photos import find_groups, read_photo

MASK_SUFFIX = ".png"


class DataError(GconetError):
    """A data set that cannot be trained on. `problems` has one line for each thing that is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


@dataclass(frozen=True)
class Sample:
    """A photo and the mask of the object its group shares."""

    photo: Path
    mask: Path


@dataclass(frozen=True)
class LabelledGroup:
    """Photos that share an object. `name` is the path below `images/`, such as "COCO256/bus"."""

    name: str
    samples: tuple[Sample, ...]


def read_mask(path: Path) -> NDArray[np.uint8]:
    """A mask or a map as (H, W) uint8, 0 to 255; 255 is the shared object. Errors as raised by `read_photo`."""
    return np.asarray(Image.fromarray(read_photo(path)).convert("L"))


def mask_problem(mask: NDArray[np.uint8]) -> str | None:
    """What is wrong with the values of a mask: those of 0 and 1 look like one, and mark next to nothing."""
    brightest = int(mask.max())
    if not 0 < brightest < 128:
        return None
    return f"has no grey value above {brightest}: 255 is the shared object, so scale its values up"


def read_groups(root: Path) -> list[LabelledGroup]:
    """List the groups below `root/images`, without opening a file.

    Raises
    ------
    DataError
        If `root` has no `images` and `gts`, or a photo has no mask.
    """
    images, truths = root / "images", root / "gts"
    for folder in (images, truths):
        if not folder.is_dir():
            raise DataError(
                [f"{root} has no folder {folder.name}/: images/<set>/<group> and gts/<set>/<group> are wanted"]
            )
    groups, problems = [], []
    for group in find_groups([images]):
        samples = [Sample(photo, truths / group.folder / f"{photo.stem}{MASK_SUFFIX}") for photo in group.photos]
        problems += [f"{s.photo} has no mask at {s.mask}" for s in samples if not s.mask.is_file()]
        groups.append(LabelledGroup(group.folder.as_posix(), tuple(samples)))
    empty = [folder for folder in _leaf_folders(images) if not any(folder.iterdir())]
    problems += [f"the group {folder} is empty" for folder in empty]
    if problems:
        raise DataError(problems)
    return groups


def hold_out(groups: Sequence[LabelledGroup], names: Iterable[str]) -> tuple[list[LabelledGroup], list[LabelledGroup]]:
    """Split into training and held-out groups, without opening a file.

    Raises
    ------
    DataError
        If a name is no group.
    """
    wanted = set(names)
    unknown = sorted(wanted - {group.name for group in groups})
    if unknown:
        raise DataError([f"there is no group {name}: names are like {groups[0].name}" for name in unknown])
    return [group for group in groups if group.name not in wanted], [group for group in groups if group.name in wanted]


def leave_out_copies(training: Sequence[LabelledGroup], held_out: Sequence[LabelledGroup]) -> list[LabelledGroup]:
    """The training groups without photos that are in the held-out groups too, by content.

    Raises
    ------
    DataError
        If a photo cannot be read.
    """
    seen = {digest(sample.photo) for group in held_out for sample in group.samples}
    if not seen:
        return list(training)
    return [
        LabelledGroup(group.name, tuple(sample for sample in group.samples if digest(sample.photo) not in seen))
        for group in training
    ]


def read_pictures(sample: Sample) -> tuple[Image.Image, Image.Image]:
    """The photo (RGB) and the mask (L)."""
    return Image.fromarray(read_photo(sample.photo)), Image.fromarray(read_mask(sample.mask))


def digest(path: Path) -> bytes:
    """SHA-256 of a file; raises DataError if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise DataError([f"{path} cannot be read ({one_line(error)})"]) from error


def _leaf_folders(root: Path) -> list[Path]:
    folders = [path for path in sorted(root.rglob("*")) if path.is_dir() and not path.name.startswith(".")]
    return [folder for folder in folders if not any(child.is_dir() for child in folder.iterdir())]
