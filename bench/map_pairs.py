"""Maps and truths that belong together: two trees of pictures with the same groups and names, whatever the format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gconet.bench.metrics import Grey
from gconet.runtime.errors import PhotoError, UsageError
from gconet.runtime.photos import find_groups
from gconet.train.groups import mask_problem, read_mask

NAMED_AT_MOST = 20  # files an error lists before it only counts


@dataclass(frozen=True)
class MapPair:
    """A map, its truth, and the group they are of (a path below the root, `.` for the root itself)."""

    group: str
    saliency: Path
    truth: Path


def find_pairs(maps: Path, truths: Path) -> list[MapPair]:
    """Match the pictures of two trees by folder and name; suffixes may differ.

    Raises
    ------
    UsageError
        If one is no folder, or if maps are missing or have no truth: the message lists them.
    PhotoError
        If a tree holds no picture, or two of a name.
    """
    saliency, truth = _pictures_by_name(maps), _pictures_by_name(truths)
    missing, extra = sorted(truth.keys() - saliency.keys()), sorted(saliency.keys() - truth.keys())
    complaints = []
    if missing:
        complaints.append(f"{len(missing)} missing in {maps}: {_listing([key.as_posix() for key in missing])}")
    if extra:
        complaints.append(f"{len(extra)} without a truth in {truths}: {_listing([key.as_posix() for key in extra])}")
    if complaints:
        raise UsageError(f"every truth needs a map of its name and no other: {'; '.join(complaints)}")
    return [MapPair(key.parent.as_posix(), saliency[key], path) for key, path in truth.items()]


def read_pair(pair: MapPair, resize: bool) -> tuple[Grey, Grey]:
    """Read a map and its truth as (H, W) uint8 of the truth's size.

    Raises
    ------
    PhotoError
        If one cannot be read, if the truth has no bright value though it is not black, or if sizes differ and the map
        is not to be resized (bilinear, as Pillow does it).
    """
    saliency, truth = read_mask(pair.saliency), read_mask(pair.truth)
    if problem := mask_problem(truth):
        raise PhotoError(f"the truth {pair.truth} {problem}")
    if saliency.shape == truth.shape:
        return saliency, truth
    height, width = truth.shape
    if not resize:
        raise PhotoError(
            f"{pair.saliency} has {saliency.shape[1]}×{saliency.shape[0]} pixels, its truth {width}×{height}: "
            "resize it, or use the toolbox eval-co-sod, which does"
        )
    return np.asarray(Image.fromarray(saliency).resize((width, height), Image.Resampling.BILINEAR)), truth


def damage_report(errors: Sequence[PhotoError]) -> PhotoError:
    """One error for many pictures."""
    return PhotoError(_listing([str(error) for error in errors], "; "))


def _pictures_by_name(root: Path) -> dict[Path, Path]:
    if not root.is_dir():
        raise UsageError(f"no folder at {root}")
    return {group.folder / path.stem: path for group in find_groups([root]) for path in group.photos}


def _listing(items: Sequence[str], separator: str = ", ") -> str:
    rest = len(items) - NAMED_AT_MOST
    return separator.join(items[:NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
