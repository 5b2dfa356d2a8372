"""Writing pictures of many groups: photos in parallel, each group whole or not at all, with a bar."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from gconet.runtime.atomic import cannot_fill
from gconet.runtime.command_line import Parser, in_one_line, positive
from gconet.runtime.errors import UsageError
from gconet.runtime.lookahead import in_parallel
from gconet.runtime.map_files import named_together, telling_what_is_done
from gconet.runtime.photos import Group

Plan = Sequence[tuple[Group, Sequence[Path]]]  # groups with the paths of their pictures, of `plan_pictures`
Save = Callable[[NDArray[np.uint8]], None]


class Note(NamedTuple):
    """Something to say of a photo: a word to count by, and a line."""

    kind: str
    line: str


Task = Callable[[Sequence[Save]], Sequence[Note]]  # makes one photo's pictures and saves them

# Suffix -> what Pillow is asked for. PNG at its fastest: the next levels take three times as long for a tenth less.
FORMATS: Mapping[str, Mapping[str, Any]] = {
    ".png": {"format": "PNG", "compress_level": 1},
    ".webp": {"format": "WEBP", "quality": 90, "method": 2},
    ".jpg": {"format": "JPEG", "quality": 90},
}
LARGEST_SIDE: Mapping[str, int] = {".webp": 16_383, ".jpg": 65_500}  # pixels; their libraries fail above


def add_batch_options(parser: Parser, out: str, noun: str, formats: Sequence[str]) -> None:
    """Where pictures go, as what, and what they may replace; the first of `formats` is the default."""
    parser.add_argument("--out", type=Path, default=Path(out), help="output folder (default: %(default)s)")
    parser.add_argument("--format", choices=formats, default=formats[0], help="of the files (default: %(default)s)")
    parser.add_argument("--jobs", type=positive, default=_cores(), metavar="N", help="photos worked on at a time "
                        "(default: one for each core)")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help=f"replace {noun}s that exist already; with "
                        "--skip-existing only those of groups that are incomplete")  # fmt: skip
    parser.add_argument(
        "--skip-existing", action="store_true", help=f"leave out groups whose {noun}s all exist already"
    )


def write_pictures(plan: Plan, tasks: Iterator[Iterable[Task]], options: argparse.Namespace, done: int) -> Counter[str]:
    """Write the pictures of every group; notes are said as they come.

    Parameters
    ----------
    tasks : for each group of the plan, a task for each of its photos; they are asked for when they can be worked on.
    options : of `add_batch_options`.
    done : groups that are complete already, which an error mentions.

    Returns
    -------
    How many notes there were of each kind.

    Raises
    ------
    UsageError
        If a picture cannot be written; and what the tasks raise, which leaves nothing of their group.
    """
    kinds = Counter[str]()
    with tqdm(total=sum(len(group.photos) for group, _ in plan), unit="photo", disable=None) as progress:
        for group, paths in plan:
            with telling_what_is_done(done), named_together(paths) as temporaries:
                share = len(paths) // len(group.photos)
                saves = [partial(save_picture, *both) for both in zip(paths, temporaries, strict=True)]
                calls = (
                    partial(task, saves[index * share : (index + 1) * share]) for index, task in enumerate(next(tasks))
                )
                for notes in in_parallel(calls, options.jobs):
                    for note in notes:
                        tqdm.write(f"gconet: {in_one_line(note.line)}", sys.stderr)
                    kinds.update(note.kind for note in notes)
                    progress.update()
            done += 1
    return kinds


def save_picture(path: Path, temporary: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture, (H, W, 3) or (H, W, 4), in the format of `path`, to the temporary file that will take its place.

    Raises
    ------
    UsageError
        If it cannot be written, or has more pixels than the format takes.
    """
    limit = LARGEST_SIDE.get(path.suffix)
    if limit is not None and max(picture.shape) > limit:
        raise UsageError(f"cannot write {path}: such files have at most {limit} pixels a side, pass --format png")
    with cannot_fill(temporary, path):
        Image.fromarray(picture).save(temporary, **FORMATS[path.suffix])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
