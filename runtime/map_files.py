"""Where the maps of groups go on disk, what they may replace, and writing a whole group's or none."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from gconet.runtime.atomic import partial_of, replacing
from gconet.runtime.errors import UsageError
from gconet.runtime.paths import kind_of
from gconet.runtime.photos import Group
from gconet.runtime.preprocess import FloatArray, to_bytes


def plan_maps(
    groups: Sequence[Group], out: Path, overwrite: bool, skip_existing: bool
) -> list[tuple[Group, list[Path]]]:
    """The groups to compute, each with a path below `out` for every photo's map; the tree of groups is mirrored.

    Parameters
    ----------
    overwrite : maps that exist may be replaced.
    skip_existing : groups whose maps all exist are left out; one that was killed while its maps got their names is
        computed again.

    Raises
    ------
    UsageError
        If a map would replace a photo or a folder, or a map that is there and not to be overwritten.
    """
    photos = {os.path.realpath(photo) for group in groups for photo in group.photos}
    plan = []
    for group in groups:
        paths = [out / group.folder / f"{photo.stem}.png" for photo in group.photos]
        kinds = [kind_of(path) for path in paths]
        for path, kind in zip(paths, kinds, strict=True):
            if kind == "folder":
                raise UsageError(f"the map {path} would replace a folder: choose another --out")
            if os.path.realpath(path) in photos:
                raise UsageError(f"the map {path} would replace a photo: choose another --out")
        if skip_existing and None not in kinds:
            continue
        present = [path for path, kind in zip(paths, kinds, strict=True) if kind]
        if present and not overwrite and not (skip_existing and _was_killed(paths)):
            raise UsageError(
                f"{present[0]} exists already: choose another --out or pass --overwrite; "
                "--skip-existing keeps groups that are complete"
            )
        plan.append((group, paths))
    return plan


def write_maps(paths: Sequence[Path], maps: Iterable[FloatArray]) -> None:
    """Write a group's maps as 8-bit grey PNGs; none gets its name before all are on disk.

    Temporary files that killed writers of the same maps left are removed before: a group that has all its names is
    left out by later runs, with whatever lies beside it.

    Raises
    ------
    UsageError
        If a map cannot be written.
    """
    own = set()
    with contextlib.ExitStack() as complete:
        for path, saliency in zip(paths, maps, strict=True):
            temporary = complete.enter_context(replacing(path))
            own.add(temporary)
            Image.fromarray(to_bytes(saliency)).save(temporary, format="PNG")
        for leftover in set(itertools.chain.from_iterable(_leftovers(paths).values())) - own:
            with contextlib.suppress(OSError):
                leftover.unlink()


def _was_killed(paths: Sequence[Path]) -> bool:
    """Whether the maps that are missing were complete, but their writer was killed before it named them."""
    leftovers = _leftovers(paths)
    return all(leftovers[path] or kind_of(path) for path in paths)


def _leftovers(paths: Sequence[Path]) -> dict[Path, list[Path]]:
    """Temporary files of each map that killed writers left; the maps are of one group, so in one folder."""
    found: dict[Path, list[Path]] = {path: [] for path in paths}
    with contextlib.suppress(OSError):
        for entry in os.scandir(paths[0].parent):
            if path := partial_of(Path(entry.path)):
                found.get(path, []).append(Path(entry.path))
    return found
