"""Cut-outs and thumbnails of groups with masks, against plain thresholding of the same maps.

    python bench/cutouts.py --data DATA --bundle B --json F

DATA holds images/ and gts/, the same tree of groups. A cut-out's mask is where its opacity is at least one half.
Borders are compared as in DAVIS: border pixels within 0.008 of the diagonal of each other agree. Thumbnails are judged
by the share of the object's true pixels they show, and by the share of the photo they keep: all of it shows them all.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import argparse
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from gconet.bench.cutout_rows import (
    WAYS,
    CutoutRow,
    ThumbnailRow,
    score_cutouts,
    score_thumbnails,
    summarise_cutouts,
    summarise_thumbnails,
)
from gconet.bench.cutout_sheet import draw_sheet
from gconet.bench.environment import describe_bundle, describe_environment
from gconet.bench.mask_scores import Mask
from gconet.bench.output_files import check_output
from gconet.runtime.atomic import replacing
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import EXIT_DONE, Parser, run, write_json
from gconet.runtime.detector import load
from gconet.runtime.errors import UsageError
from gconet.runtime.map_source import read_map
from gconet.runtime.opencv import opencv
from gconet.runtime.photos import Group, find_groups, read_photo
from gconet.runtime.preprocess import FloatArray

# Never trained on by the demo weights, see their model card; no setting of cut-outs was chosen by them either.
HELD_OUT = (
    "VOC10CoSeg/Sheep", "VOC10CoSeg/Boat", "COCO256/elephant", "COCO256/umbrella", "COCO256/broccoli",
    "COCO256/wine_glass", "DAVIS16val/cows", "DAVIS16val/car-roundabout",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; errors as raised by `find_groups`, `load` and `read_photo`."""
    parser = Parser("cutouts.py", "Score cut-outs and thumbnails of groups with masks.")
    parser.add_argument("--data", type=Path, help="folder with images/ and gts/")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle that makes the maps")
    parser.add_argument("--maps", type=Path, help="maps that `gconet detect` wrote of images/ with this bundle, "
                        "instead of making them again")  # fmt: skip
    parser.add_argument("--only", choices=("cutouts", "thumbnails"), help="leave the other measurement out")
    parser.add_argument("--groups", nargs="+", metavar="GROUP", help="only these groups, such as COCO256/bus")
    parser.add_argument("--held-out", nargs="*", default=HELD_OUT, metavar="GROUP", help="groups to sum up apart "
                        "(default: those the demo weights were not trained on)")  # fmt: skip
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--sheet", type=Path, help="draw cut-outs and thumbnails of the example photos to this PNG")
    options = parser.parse_args(arguments)
    if options.data is None and (options.json or options.sheet is None):
        raise UsageError("nothing to measure: name the photos and masks with --data (or draw a --sheet)")
    bundle = open_bundle(options.bundle)
    check_output(options.json, options.sheet)
    opencv().setNumThreads(1)
    if options.sheet:
        sheet = draw_sheet(options.bundle)
        with replacing(options.sheet) as temporary:
            sheet.save(temporary, format="PNG")
    if options.data is None:
        return EXIT_DONE
    cutouts, thumbnails = _measure(options)
    document: dict[str, Any] = {
        "environment": describe_environment(),
        "bundle": describe_bundle(bundle),
        "held_out": sorted((cutouts.keys() | thumbnails.keys()) & set(options.held_out)),
    }
    if cutouts:
        document["cutouts"] = _with_sums(cutouts, options.held_out, summarise_cutouts)
        _print_cutouts(document["cutouts"])
    if thumbnails:
        document["thumbnails"] = _with_sums(thumbnails, options.held_out, summarise_thumbnails)
        _print_thumbnails(document["thumbnails"]["groups"].values())
    if options.json:
        write_json(options.json, document)
    return EXIT_DONE


def _measure(options: argparse.Namespace) -> tuple[dict[str, list[CutoutRow]], dict[str, list[ThumbnailRow]]]:
    found = {group.folder.as_posix(): group for group in find_groups([options.data / "images"])}
    if absent := sorted(set(options.groups or []) - found.keys()):
        raise UsageError(f"--groups {' '.join(absent)}: not in {options.data / 'images'}")
    groups = [group for name, group in found.items() if options.groups is None or name in options.groups]
    cutouts: dict[str, list[CutoutRow]] = {}
    thumbnails: dict[str, list[ThumbnailRow]] = {}
    with tqdm(total=sum(len(group.photos) for group in groups), unit="photo", disable=None) as progress:
        for group, maps in zip(groups, _maps(groups, options), strict=True):
            name = group.folder.as_posix()
            photos = [read_photo(path) for path in group.photos]
            truths = [_truth(options.data / "gts" / group.folder / f"{path.stem}.png") for path in group.photos]
            if options.only != "cutouts":
                thumbnails[name] = score_thumbnails(photos, maps, truths)
            if options.only != "thumbnails":
                rows = (score_cutouts(*each) for each in zip(photos, maps, truths, strict=True))
                cutouts[name] = list(tqdm(rows, name, len(photos), leave=False, disable=None))
            progress.update(len(photos))
    return cutouts, thumbnails


def _maps(groups: Sequence[Group], options: argparse.Namespace) -> Iterator[list[FloatArray]]:
    if options.maps:
        return (
            [read_map(options.maps / group.folder / f"{path.stem}.png") for path in group.photos] for group in groups
        )
    return load(options.bundle).detect_groups(group.photos for group in groups)


def _truth(path: Path) -> Mask:
    return read_photo(path)[..., 0] > 127


def _with_sums(groups: dict[str, list[Any]], held_out: Iterable[str], summarise: Any) -> dict[str, Any]:
    """Each group's summary, and those of all photos of the held-out and of the other groups."""
    kept = [row for name, rows in groups.items() if name in held_out for row in rows]
    others = [row for name, rows in groups.items() if name not in held_out for row in rows]
    sums = {name: summarise(rows) for name, rows in (("held-out", kept), ("others", others)) if rows}
    return {**sums, "groups": {name: summarise(rows) for name, rows in groups.items()}}


def _print_cutouts(document: dict[str, Any]) -> None:
    print("| photos | " + " | ".join(f"{way}: IoU, border F" for way in WAYS) + " |")
    print("| --- |" + " --- |" * len(WAYS))
    sums = {name: document[name] for name in ("held-out", "others") if name in document}
    for name, row in {**sums, **document["groups"]}.items():
        scores = [f"{score['iou']:.3f}, {score['boundary_f']:.3f}" for score in row["scores"].values()]
        print(f"| {name} ({row['photos']}) | {' | '.join(scores)} |")


def _print_thumbnails(groups: Iterable[list[dict[str, Any]]]) -> None:
    """Means over the groups' means, and the weakest group's."""
    print("| thumbnails | shown | weakest group | weakest photo | photo kept | padded | ratio off by |")
    print("| --- |" + " --- |" * 6)
    for same in zip(*groups, strict=True):
        count = {name: sum(row[name] for row in same) for name in ("padded", "thumbnails")}
        print(f"| {same[0]['aspect']}, {same[0]['fit']} | {statistics.mean(row['shown'] for row in same):.3f} "
              f"| {min(row['shown'] for row in same):.3f} | {min(row['shown_worst'] for row in same):.3f} "
              f"| {statistics.mean(row['photo_kept'] for row in same):.2f} "
              f"| {count['padded']} of {count['thumbnails']} "
              f"| {max(row['ratio_error_pixels'] for row in same):.2f} px |")  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
