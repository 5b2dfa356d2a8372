"""`gconet show`: sheets of groups, a gallery, groups in the plane by their consensus, and how tight they are."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gconet.runtime.atomic import replacing
from gconet.runtime.command_line import EXIT_DONE, Parser, add_signature_argument, positive, warn
from gconet.runtime.detector import Detector, load
from gconet.runtime.errors import UsageError
from gconet.runtime.extras import needing
from gconet.runtime.gallery import open_gallery
from gconet.runtime.group_sizes import check_size
from gconet.runtime.group_vectors import DEFINITION, Spread, format_figure, measure_spread, spread_table
from gconet.runtime.map_files import counted
from gconet.runtime.paths import folder_problem, kind_of
from gconet.runtime.photos import Group, find_groups, readable_groups
from gconet.runtime.show_group import LOOKS, GroupPoints, Scope, look_at, look_at_points

DESCRIPTION = "Draw what a bundle sees in groups of photos: sheets, a gallery, and the groups' consensus in the plane."
EPILOG = """\
examples:
  gconet show photos/apple --out show                one group: show/sheet.png and show/index.html
  gconet show photos/ --out show                     a tree of groups: also show/space.png
  gconet show photos/ --compare gam-only.gconet      how tight groups are to two networks

OUT gets:
  GROUP/sheet.png  photo, attention, map and overlay, a column for each photo
  index.html       the same to click through, in one file that loads nothing: a slider between photo and map
  space.png        t-SNE of the consensus of each group and of its sub-groups, with photos as markers
  show.json        the variance d of consensus vectors within groups, as printed

Attention and maps are those of whole groups, however few of their photos are drawn (--columns). d of a group is the
mean squared distance of the unit-norm consensus vectors of its sub-groups (--subgroup 1: of single photos) to their
mean; the d of all is the mean over groups. `between groups` is the same of the groups' means; d / between is small
where groups are tight and apart. All files get their names at the end, when everything is drawn.

Needs matplotlib and scikit-learn: pip install 'gconet-deploy[pictures]'."""

LARGE_PAGE_MB = 50  # above which phones struggle


@dataclass(frozen=True)
class Outputs:
    """Where everything goes; the sheets in the order of the groups. A single group is no space of groups."""

    sheets: tuple[Path, ...]
    gallery: Path
    space: Path | None
    numbers: Path


def main(arguments: Sequence[str]) -> int:
    """Run `gconet show`; errors as raised by `find_groups`, `plan_outputs`, `load`, `look_at` and `draw_sheet`."""
    parser = Parser("gconet show", DESCRIPTION, EPILOG)
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="photos of one group, or folders of groups")
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to run (default: %(default)s)")
    parser.add_argument("--compare", metavar="OTHER", help="another bundle, for its d and its t-SNE beside the first")
    parser.add_argument("--out", type=Path, default=Path("show"), help="output folder (default: %(default)s)")
    parser.add_argument("--columns", type=positive, default=12, metavar="N",
                        help="draw the first N photos of each group (default: %(default)s)")  # fmt: skip
    parser.add_argument("--size", type=positive, default=480, metavar="PIXELS",
                        help="longer side of the gallery's pictures, 64 to 2048 (default: %(default)s)")  # fmt: skip
    parser.add_argument("--subgroup", type=positive, default=1, metavar="K",
                        help="photos of a sub-group, each a point (default: %(default)s)")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the engine's choice)")
    add_signature_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist already")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave photos out that cannot be read")
    options = parser.parse_args(arguments)
    if not 64 <= options.size <= 2048:
        parser.error(f"--size {options.size} is not from 64 to 2048")

    with needing("pictures", "gconet show"):  # told before minutes of work
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401

    groups = find_groups(options.photos)
    if options.skip_unreadable:
        groups = readable_groups(groups, warn)
    outputs = plan_outputs(groups, options.out, options.overwrite)
    names = [options.bundle] if options.compare is None else [options.bundle, options.compare]
    if len({Path(name).resolve() for name in names}) < len(names):
        raise UsageError(f"--compare {options.compare} is the bundle itself: name another one")
    bundles = {
        name: load(name, options.device, options.threads, require_signature=options.require_signature) for name in names
    }
    for detector in bundles.values():
        for group in groups:
            check_size(detector, group)
    spreads = draw_groups(bundles, groups, outputs, Scope(options.columns, options.size, options.subgroup))
    print(spread_table(spreads))
    megabytes = outputs.gallery.stat().st_size / 1e6
    space = [outputs.space.name] if outputs.space and outputs.space.is_file() else []
    pages = [f"{outputs.gallery.name} ({megabytes:.1f} MB)", *space, outputs.numbers.name]
    print(f"{counted(len(groups), 'sheet')}, {', '.join(pages)} in {options.out}")
    if megabytes > LARGE_PAGE_MB:
        warn(f"{outputs.gallery} is large for a browser: fewer --columns or a smaller --size make it lighter")
    return EXIT_DONE


def plan_outputs(groups: Sequence[Group], out: Path, overwrite: bool) -> Outputs:
    """Where the files of these groups go.

    Raises
    ------
    UsageError
        If two groups would share a sheet, a file would replace a photo or a folder, or one that is there and not to be
        overwritten; if the folder cannot be made or written in.
    """
    sheets = tuple(out / group.folder / "sheet.png" for group in groups)
    for first, second in itertools.combinations(range(len(groups)), 2):
        if sheets[first] == sheets[second]:
            raise UsageError(
                f"{groups[first].photos[0].parent} and {groups[second].photos[0].parent} would share the sheet "
                f"{sheets[first]}: show them one by one, or the folder that holds both"
            )
    space = out / "space.png" if len(groups) > 1 else None
    outputs = Outputs(sheets, out / "index.html", space, out / "show.json")
    photos = {os.path.realpath(photo) for group in groups for photo in group.photos}
    for path in (*sheets, outputs.gallery, *([space] if space else []), outputs.numbers):
        kind = kind_of(path)
        if kind == "folder":
            raise UsageError(f"{path} would replace a folder: choose another --out")
        if os.path.realpath(path) in photos:
            raise UsageError(f"{path} would replace a photo: choose another --out")
        if kind and not overwrite:
            raise UsageError(f"{path} exists already: choose another --out or pass --overwrite")
    if problem := folder_problem(out):
        raise UsageError(f"cannot write {out}: {problem}; choose another --out")
    return outputs


def draw_groups(
    bundles: Mapping[str, Detector], groups: Sequence[Group], outputs: Outputs, scope: Scope
) -> dict[str, Spread]:
    """Write every file, and return how tight groups are to each bundle; sheets and gallery are the first bundle's.

    Groups are looked at one by one. No file gets its name before all are drawn.

    Raises
    ------
    BundleError, PhotoError, TargetError, UsageError
        As for `look_at` and `draw_sheet`, and if a file cannot be written.
    """
    from gconet.runtime.show_sheet import draw_sheet

    main_detector, *others = bundles.values()
    points: list[list[GroupPoints]] = [[] for _ in bundles]
    photos = sum(len(group.photos) for group in groups)
    stages = LOOKS + 2 * len(others)  # how often each photo is looked at
    with contextlib.ExitStack() as files, tqdm(total=photos * stages, unit="look", disable=None) as bar:
        title = f"GCoNet: {counted(len(groups), 'group')}, {counted(photos, 'photo')}"
        gallery = files.enter_context(open_gallery(outputs.gallery, title))
        for group, sheet in zip(groups, outputs.sheets, strict=True):
            shown = look_at(main_detector, group, scope, bar.update)
            gallery.add(shown)
            draw_sheet(shown).save(files.enter_context(replacing(sheet)), format="PNG", optimize=True)
            points[0].append(shown.points)
            for seen, detector in zip(points[1:], others, strict=True):
                seen.append(look_at_points(detector, group, scope, None, bar.update))
        spreads = {
            name: measure_spread((one.name, one.parts) for one in seen)
            for name, seen in zip(bundles, points, strict=True)
        }
        if outputs.space:
            _write_space(files, outputs.space, spreads, points)
        numbers = json.dumps(_document(bundles, spreads, scope), indent=2) + "\n"
        files.enter_context(replacing(outputs.numbers)).write_text(numbers, "utf-8")
    return spreads


def _write_space(
    files: contextlib.ExitStack, path: Path, spreads: Mapping[str, Spread], points: Sequence[Sequence[GroupPoints]]
) -> None:
    from gconet.runtime.show_space import LEAST_POINTS, Panel, draw_space

    panels = [
        Panel(f"{Path(name).name}: d = {format_figure(spread.d)}", seen)
        for (name, spread), seen in zip(spreads.items(), points, strict=True)
    ]
    picture = draw_space(panels)
    if picture is None:
        warn(f"no {path.name}: a t-SNE needs at least {LEAST_POINTS} groups and sub-groups whose consensus differs")
        path.unlink(missing_ok=True)  # one of an earlier run shows other groups
        return
    files.enter_context(replacing(path)).write_bytes(picture)


def _document(bundles: Mapping[str, Detector], spreads: Mapping[str, Spread], scope: Scope) -> dict[str, Any]:
    return {
        "definition": DEFINITION,
        "subgroup": scope.subgroup,
        "bundles": [
            {
                "bundle": name,
                "target": detector.bundle.manifest.target,
                "precision": detector.bundle.manifest.precision,
                "checkpoint_sha256": detector.bundle.manifest.checkpoint.get("sha256"),
                **spreads[name].document(),
            }
            for name, detector in bundles.items()
        ],
    }
