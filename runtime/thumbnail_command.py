"""`gconet thumbnail`: crops around what a group of photos shares, in the asked shapes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from gconet.runtime.co_location import locate
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, warn, write_json
from gconet.runtime.composition import Colour, colour_of
from gconet.runtime.errors import GconetError
from gconet.runtime.framing import FITS, Frame, Shape, central_frame, frame_group
from gconet.runtime.large_group_bar import LargeGroupBar
from gconet.runtime.map_files import Tree, check_report, counted, plan_pictures
from gconet.runtime.map_source import add_source_options, group_maps, map_files
from gconet.runtime.opencv import opencv
from gconet.runtime.photos import find_groups, read_photo, readable_groups
from gconet.runtime.picture_batch import Note, Plan, Save, Task, add_batch_options, write_pictures
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.saliency_level import THRESHOLDS
from gconet.runtime.thumbnail_pictures import overlay, thumbnail

DESCRIPTION = "Crop each photo to the object that a group of photos shares, in the asked shapes and at one scale."
EPILOG = """\
examples:
  gconet thumbnail photos/ --out thumbs           256×256 pixels, in thumbs/1x1-256/, folders of groups mirrored
  gconet thumbnail photos/ --aspect 1:1 --aspect 4:3 --size 256 --size 512
  gconet thumbnail photos/ --maps maps --overlay  from maps that `gconet detect photos/ --out maps` wrote

A crop holds all objects whole. Where no crop inside the photo can, as of a train in a square, --fill is shown beside
the photo; with --fit crop thumbnails never reach beyond it: the most salient objects that fit are kept, and a line says
how many were left out. The objects take the same share of every thumbnail of a group, where the photos allow it. Where
nothing is co-salient it is the middle of the photo, and a line says so. Overlays: yellow is the object, red what a crop
must hold, dashed the crop."""


def main(arguments: Sequence[str]) -> int:
    """Run `gconet thumbnail`; errors as raised by `find_groups`, `plan_pictures`, `group_maps` and `locate`."""
    parser = Parser("gconet thumbnail", DESCRIPTION, EPILOG)
    add_source_options(parser)
    add_batch_options(parser, "thumbnails", "thumbnail", ("jpg", "png", "webp"))
    parser.add_argument("--aspect", type=_aspect, action="append", metavar="W:H", help="aspect ratio; repeatable "
                        "(default: 1:1)")  # fmt: skip
    parser.add_argument("--size", type=positive, action="append", metavar="N", help="longer side in pixels; repeatable "
                        "(default: 256)")  # fmt: skip
    parser.add_argument("--fit", choices=FITS, default=FITS[0], help="what becomes of objects that no crop inside the "
                        "photo holds (default: %(default)s)")  # fmt: skip
    parser.add_argument("--fill", type=_colour, default="white", metavar="COLOUR", help="colour beyond the photo, a "
                        "name or #rrggbb (default: %(default)s)")  # fmt: skip
    parser.add_argument("--threshold", choices=THRESHOLDS, default=THRESHOLDS[0], help="where a map is split: at twice "
                        "its mean, or by Otsu's method (default: %(default)s)")  # fmt: skip
    parser.add_argument("--overlay", action="store_true", help="also write photos with the boxes drawn in")
    parser.add_argument("--json", type=Path, metavar="F", help="write the boxes of the thumbnails that this run makes "
                        "to this file, replacing an earlier one")  # fmt: skip
    options = parser.parse_args(arguments)

    shapes = list(
        dict.fromkeys(
            Shape(across, down, size) for across, down in options.aspect or [(1, 1)] for size in options.size or [256]
        )
    )
    opencv().setNumThreads(1)  # photos are worked on in parallel
    groups = find_groups(options.photos)
    if options.skip_unreadable:
        groups = readable_groups(groups, warn)
    inputs = map_files(options, groups)
    plan = plan_pictures(groups, _trees(shapes, options), "thumbnail", options.overwrite, options.skip_existing, inputs)
    if options.json:
        check_report(options.json, groups, inputs)
    boxes: list[dict[str, object]] = []
    with LargeGroupBar() as bar:
        maps = group_maps(options, [group for group, _ in plan], bar.update)
        skipped = len(groups) - len(plan)
        notes = write_pictures(plan, _tasks(plan, maps, shapes, options, boxes), options, skipped)
    if options.json:
        write_json(options.json, boxes)
    pictures = sum(len(group.photos) for group, _ in plan) * len(shapes)
    print(f"{counted(pictures, 'thumbnail')} of {counted(len(plan), 'group')} in {options.out}"
          + (f"; nothing found in {counted(notes['nothing'], 'photo')}, the middle shown" if notes["nothing"] else "")
          + (f"; objects left out of {counted(notes['left out'], 'thumbnail')}" if notes["left out"] else "")
          + (f"; {counted(skipped, 'group')} skipped, with thumbnails already" if skipped else ""))  # fmt: skip
    return EXIT_DONE


def _trees(shapes: Sequence[Shape], options: argparse.Namespace) -> list[Tree]:
    """A tree of thumbnails for each shape, then one of overlays for each if they are asked for."""
    names = [f"{shape.across}x{shape.down}-{shape.size}" for shape in shapes]
    names += [f"{name}-overlay" for name in names if options.overlay]
    return [Tree(options.out / name, f".{options.format}") for name in names]


def _tasks(
    plan: Plan,
    maps: Iterator[Iterator[FloatArray]],
    shapes: Sequence[Shape],
    options: argparse.Namespace,
    boxes: list[dict[str, object]],
) -> Iterator[Iterator[Task]]:
    """The tasks of each group; its photos' frames depend on one another, so all its maps are looked at first."""
    for (group, _), saliency in zip(plan, maps, strict=True):
        locations = [(locate(values, threshold=options.threshold), values.shape) for values in saliency]
        framed = [frame_group([location for location, _ in locations], shape, fit=options.fit) for shape in shapes]
        frames = [
            [found or central_frame(size[0], size[1], shape) for found, shape in zip(column, shapes, strict=True)]
            for column, (_, size) in zip(zip(*framed, strict=True), locations, strict=True)
        ]
        for path, row in zip(group.photos, frames, strict=True):
            boxes += [_described(path, frame) for frame in row]
        yield (
            partial(_crop, path, row, options.fill, options.overlay)
            for path, row in zip(group.photos, frames, strict=True)
        )


def _crop(path: Path, frames: Sequence[Frame], fill: Colour, with_overlay: bool, saves: Sequence[Save]) -> list[Note]:
    """Write one photo's thumbnails."""
    photo = read_photo(path)
    try:
        pictures = [thumbnail(photo, frame, fill) for frame in frames]
    except GconetError as error:
        raise type(error)(f"{path}: {error}") from error
    if with_overlay:
        pictures += [overlay(photo, frame) for frame in frames]
    for save, picture in zip(saves, pictures, strict=True):
        save(picture)
    if frames[0].tight is None:
        return [Note("nothing", f"nothing found in {path}: its middle is shown")]
    return [
        Note("left out", f"{counted(frame.left_out, 'object')} of {path} left out of {frame.shape.across}:"
                         f"{frame.shape.down}: no room beside the most salient")
        for frame in frames if frame.left_out
    ]  # fmt: skip


def _described(path: Path, frame: Frame) -> dict[str, object]:
    boxes = {"crop": frame.crop, "tight": frame.tight, "enlarged": frame.enlarged}
    return {
        "photo": path.as_posix(),
        "aspect": f"{frame.shape.across}:{frame.shape.down}",
        "pixels": frame.shape.pixels,
        **{name: box and [round(edge, 2) for edge in dataclasses.astuple(box)] for name, box in boxes.items()},
        "left_out": frame.left_out,
        "padded": frame.padded,
    }


def _aspect(text: str) -> tuple[int, int]:
    across, _, down = text.partition(":")
    try:
        return positive(across), positive(down)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an aspect ratio such as 4:3") from None


def _colour(text: str) -> Colour:
    colour = colour_of(text)
    if colour is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a colour such as white or #ff8800")
    return colour
