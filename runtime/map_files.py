"""Where maps and pictures of groups go on disk, what they may replace, and writing a whole group's or none."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gconet.runtime.atomic import partial_of, replacing, short
from gconet.runtime.errors import GconetError, UsageError
from gconet.runtime.paths import folder_problem, kind_of
from gconet.runtime.photos import Group
from gconet.runtime.preprocess import FloatArray, to_bytes


@dataclass(frozen=True)
class Tree:
    """A folder of pictures that mirrors the groups, one for each photo, and what their names end with."""

    folder: Path
    suffix: str = ".png"


def plan_maps(
    groups: Sequence[Group], out: Path, overwrite: bool, skip_existing: bool
) -> list[tuple[Group, list[Path]]]:
    """The groups to compute, each with a path below `out` for every photo's map; see `plan_pictures`."""
    return plan_pictures(groups, [Tree(out)], "map", overwrite, skip_existing)


def plan_pictures(
    groups: Sequence[Group],
    trees: Sequence[Tree],
    noun: str,
    overwrite: bool,
    skip_existing: bool,
    inputs: Iterable[Path] = (),
) -> list[tuple[Group, list[Path]]]:
    """The groups to compute, each with paths of every photo's pictures, photo by photo one in each tree.

    Parameters
    ----------
    noun : what a picture is called in errors.
    overwrite : pictures that exist may be replaced.
    skip_existing : groups whose pictures all exist are left out; one that was killed while its pictures got their names
        is computed again.
    inputs : files that must stay as they are, besides the photos.

    Raises
    ------
    UsageError
        If a picture would replace a photo, another input or a folder, or a picture that is there and not to be
        overwritten; if a tree's folder cannot be made or written in, before minutes of work.
    """
    read = _read(groups, inputs)
    plan = []
    for group in groups:
        paths = [tree.folder / group.folder / f"{photo.stem}{tree.suffix}" for photo in group.photos for tree in trees]
        kinds = [kind_of(path) for path in paths]
        for path, kind in zip(paths, kinds, strict=True):
            if kind == "folder":
                raise UsageError(f"the {noun} {path} would replace a folder: choose another --out")
            if what := read.get(os.path.realpath(path)):
                raise UsageError(f"the {noun} {path} would replace {what}: choose another --out")
        if skip_existing and None not in kinds:
            continue
        present = [path for path, kind in zip(paths, kinds, strict=True) if kind]
        if present and not overwrite and not (skip_existing and _was_killed(paths)):
            raise UsageError(
                f"{present[0]} exists already: choose another --out or pass --overwrite; "
                "--skip-existing keeps groups that are complete"
            )
        plan.append((group, paths))
    for tree in trees if plan else ():  # where all is done, it may be for reading only
        if problem := folder_problem(tree.folder):
            raise UsageError(f"cannot write {tree.folder}: {problem}; choose another --out")
    return plan


def check_report(path: Path, groups: Sequence[Group], inputs: Iterable[Path] = ()) -> None:
    """Raise UsageError if a report, which replaces an earlier one, would replace a folder, a photo or another input."""
    what = "a folder" if kind_of(path) == "folder" else _read(groups, inputs).get(os.path.realpath(path))
    if what:
        raise UsageError(f"the report {path} would replace {what}: choose another --json")


def write_maps(paths: Sequence[Path], maps: Iterable[FloatArray]) -> None:
    """Write a group's maps as 8-bit grey PNGs; none gets its name before all are on disk.

    Temporary files that killed writers of the same maps left are removed before: a group that has all its names is
    left out by later runs, with whatever lies beside it.

    Raises
    ------
    UsageError
        If a map cannot be written.
    """
    own: set[Path] = set()
    with contextlib.ExitStack() as complete:
        for path, saliency in zip(paths, maps, strict=True):
            temporary = complete.enter_context(replacing(path))
            own.add(temporary)
            Image.fromarray(to_bytes(saliency)).save(temporary, format="PNG")
        _remove_leftovers(paths, own)


@contextlib.contextmanager
def named_together(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Temporary paths of a group's pictures: none gets its name before the block has ended well.

    Temporary files that killed writers of the same pictures left are removed before.

    Raises
    ------
    UsageError
        If one cannot be written; the block itself says so of writing, by `cannot_fill`.
    """
    with contextlib.ExitStack() as complete:
        temporary = [complete.enter_context(replacing(path)) for path in paths]
        yield temporary
        _remove_leftovers(paths, temporary)


@contextlib.contextmanager
def telling_what_is_done(groups: int) -> Iterator[None]:
    """Errors of the block say how many groups are complete, and how to go on; unless none is."""
    try:
        yield
    except GconetError as error:
        if not groups:
            raise
        finished = f"{counted(groups, 'group')} {'is' if groups == 1 else 'are'} done"
        raise type(error)(f"{error}; {finished}; pass --overwrite, or --skip-existing to go on") from error


def counted(count: int, noun: str) -> str:
    """A number of things, in words: "1 map", "2 maps"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _read(groups: Sequence[Group], inputs: Iterable[Path]) -> dict[str, str]:
    """What the files are that must stay as they are, by their real paths."""
    others = {os.path.realpath(path): "a file that is read for it" for path in inputs}
    return others | {os.path.realpath(photo): "a photo" for group in groups for photo in group.photos}


def _remove_leftovers(paths: Sequence[Path], own: Collection[Path]) -> None:
    """Remove temporary files that killed writers left, before maps get their names: none is beside a whole group."""
    for leftover in set(itertools.chain.from_iterable(_leftovers(paths).values())) - set(own):
        with contextlib.suppress(OSError):
            leftover.unlink()


def _was_killed(paths: Sequence[Path]) -> bool:
    """Whether the pictures that are missing were complete, but their writer was killed before it named them."""
    leftovers = _leftovers(paths)
    return all(leftovers[path] or kind_of(path) for path in paths)


def _leftovers(paths: Sequence[Path]) -> dict[Path, list[Path]]:
    """Temporary files of each picture that killed writers left."""
    found: dict[Path, list[Path]] = {path: [] for path in paths}
    by_short = {short(path): leftovers for path, leftovers in found.items()}
    for folder in {path.parent for path in paths}:
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                if path := partial_of(Path(entry.path)):
                    by_short.get(path, []).append(Path(entry.path))
    return found
