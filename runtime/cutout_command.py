"""`gconet cutout`: what a group of photos shares, cut out of each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from gconet.runtime.command_line import EXIT_DONE, Parser, warn
from gconet.runtime.composition import Colour, colour_of, compose, rgba
from gconet.runtime.cutout import cutout
from gconet.runtime.errors import GconetError, UsageError
from gconet.runtime.large_group_bar import LargeGroupBar
from gconet.runtime.map_files import Tree, counted, plan_pictures
from gconet.runtime.map_source import add_source_options, group_maps, map_files
from gconet.runtime.opencv import opencv
from gconet.runtime.paths import kind_of
from gconet.runtime.photos import find_groups, read_photo, readable_groups
from gconet.runtime.picture_batch import Note, Plan, Save, Task, add_batch_options, write_pictures
from gconet.runtime.preprocess import FloatArray, Photo
from gconet.runtime.saliency_level import THRESHOLDS, Threshold

Background = Colour | Photo | None

DESCRIPTION = "Cut out of each photo the object that a group of photos shares, with a soft border."
EPILOG = """\
examples:
  gconet cutout photos/ --out cutouts            a folder is a group; a folder of folders is many, mirrored in cutouts/
  gconet cutout photos/ --background white       on a colour: a name, or #rrggbb
  gconet cutout photos/ --background studio.jpg  on a picture, scaled and cut to cover each photo
  gconet cutout photos/ --maps maps --jobs 8     from maps that `gconet detect photos/ --out maps` wrote

Cut-outs have the photos' sizes (upright, EXIF orientation applied). Without --background they are transparent, and what
is fully transparent is black in the file: the rest of the photo is not in it. Where nothing is co-salient the whole
photo is written, opaque, and a line names it. A group's cut-outs are written when all of them are made."""


def main(arguments: Sequence[str]) -> int:
    """Run `gconet cutout`; errors as raised by `find_groups`, `plan_pictures`, `group_maps` and `cutout`."""
    parser = Parser("gconet cutout", DESCRIPTION, EPILOG)
    add_source_options(parser)
    add_batch_options(parser, "cutouts", "cut-out", ("png", "webp"))
    parser.add_argument("--background", metavar="COLOUR|PICTURE", help="what cut-outs are put on (default: nothing, "
                        "they are transparent)")  # fmt: skip
    parser.add_argument("--threshold", choices=THRESHOLDS, default=THRESHOLDS[0], help="where a map is split: at twice "
                        "its mean, or by Otsu's method (default: %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)

    opencv().setNumThreads(1)  # photos are worked on in parallel
    background = None if options.background is None else read_background(options.background)
    groups = find_groups(options.photos)
    if options.skip_unreadable:
        groups = readable_groups(groups, warn)
    inputs = map_files(options, groups)
    if isinstance(background, np.ndarray):
        inputs.append(Path(options.background))
    trees = [Tree(options.out, f".{options.format}")]
    plan = plan_pictures(groups, trees, "cut-out", options.overwrite, options.skip_existing, inputs)

    with LargeGroupBar() as bar:
        maps = group_maps(options, [group for group, _ in plan], bar.update)
        skipped = len(groups) - len(plan)
        notes = write_pictures(plan, _tasks(plan, maps, background, options.threshold), options, skipped)
    pictures, without = sum(len(paths) for _, paths in plan), notes["nothing"]
    print(f"{counted(pictures, 'cut-out')} of {counted(len(plan), 'group')} in {options.out}"
          + (f"; nothing found in {counted(without, 'photo')}, kept whole" if without else "")
          + (f"; {counted(skipped, 'group')} skipped, with cut-outs already" if skipped else ""))  # fmt: skip
    return EXIT_DONE


def read_background(text: str) -> Colour | Photo:
    """A colour by its name or as #rrggbb, or the picture at a path.

    Raises
    ------
    UsageError
        If it is neither.
    PhotoError
        If there is a file that is no picture.
    """
    colour = colour_of(text)
    if colour is not None:
        return colour
    if kind_of(text) != "file":
        raise UsageError(
            f"the background {text} is no colour (such as white or #ff8800, none that has an opacity) and no picture "
            "that exists"
        )
    return read_photo(text)


def _tasks(
    plan: Plan, maps: Iterator[Iterator[FloatArray]], background: Background, threshold: Threshold
) -> Iterator[Iterator[Task]]:
    for (group, _), saliency in zip(plan, maps, strict=True):
        yield map(partial(_task, background, threshold), group.photos, saliency)


def _task(background: Background, threshold: Threshold, path: Path, saliency: FloatArray) -> Task:
    return partial(_cut, path, saliency, background, threshold)


def _cut(
    path: Path, saliency: FloatArray, background: Background, threshold: Threshold, saves: Sequence[Save]
) -> list[Note]:
    """Write one cut-out; the whole photo where nothing is co-salient."""
    photo = read_photo(path)
    try:
        alpha = cutout(photo, saliency, threshold=threshold)
    except GconetError as error:
        raise type(error)(f"{path}: {error}") from error
    shown = np.full(photo.shape[:2], 255, np.uint8) if alpha is None else alpha
    (save,) = saves
    save(rgba(photo, shown) if background is None else compose(photo, shown, background))
    return [Note("nothing", f"nothing found in {path}: kept whole")] if alpha is None else []
