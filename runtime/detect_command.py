"""`gconet detect`: one 8-bit PNG map per photo, at the photo's own size, mirroring the tree of groups."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from gconet.runtime.command_line import EXIT_DONE, Parser, positive
from gconet.runtime.detector import Detector, load
from gconet.runtime.errors import GconetError, UsageError
from gconet.runtime.map_files import plan_maps, write_maps
from gconet.runtime.photos import Group, find_groups

DESCRIPTION = "Find the object a group of photos shares and write one map per photo: white is the shared object."
EPILOG = """\
examples:
  gconet detect a.jpg b.jpg c.jpg --out maps       three photos, one group
  gconet detect photos/ --out maps                 a folder is a group; a folder of folders is many, mirrored in maps/
  gconet detect photos/ --skip-existing            go on where an earlier run stopped

Maps are 8-bit grey PNGs of the photo's size (upright, EXIF orientation applied). A group's maps are written when all of
them are computed, so a bad photo leaves nothing of its group behind; groups before it are kept."""


def main(arguments: Sequence[str]) -> int:
    """Run `gconet detect`; errors as raised by `find_groups`, `plan_maps`, `load` and `Detector.detect`."""
    parser = Parser("gconet detect", DESCRIPTION, EPILOG)
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="photos, or folders of photos")
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to run (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("maps"), help="output folder (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the engine's choice)")
    parser.add_argument("--overwrite", action="store_true", help="replace maps that exist already")
    parser.add_argument("--skip-existing", action="store_true", help="leave out groups whose maps all exist already")
    options = parser.parse_args(arguments)

    groups = find_groups(options.photos)
    plan = plan_maps(groups, options.out, options.overwrite, options.skip_existing)
    detector = load(options.bundle, options.device, options.threads)
    for group, _ in plan:
        _check_size(detector, group)
    skipped = len(groups) - len(plan)
    _detect_all(detector, plan, skipped)

    print(f"{_counted(sum(len(paths) for _, paths in plan), 'map')} of {_counted(len(plan), 'group')} in {options.out}"
          + (f"; {_counted(skipped, 'group')} skipped, with maps already" if skipped else ""))  # fmt: skip
    return EXIT_DONE


def _check_size(detector: Detector, group: Group) -> None:
    count, verified = len(group.photos), detector.bundle.manifest.max_group
    try:
        detector.check_count(count)
    except UsageError as error:
        raise UsageError(f"{group.photos[0].parent}: {error}") from error
    if count > verified:
        print(f"note: a group of {count} photos; {detector.bundle.folder} was verified up to {verified}",
              file=sys.stderr)  # fmt: skip


def _detect_all(detector: Detector, plan: Sequence[tuple[Group, Sequence[Path]]], done: int) -> None:
    """Write the maps of every group; an error says how many groups are complete, those `done` before included."""
    with tqdm(total=sum(len(paths) for _, paths in plan), unit="photo", disable=None) as progress:
        maps = detector.detect_groups(group.photos for group, _ in plan)
        for _, paths in plan:
            try:
                write_maps(paths, next(maps))
            except GconetError as error:
                if not done:
                    raise
                finished = f"{_counted(done, 'group')} {'is' if done == 1 else 'are'} done"
                raise type(error)(f"{error}; {finished}; pass --overwrite, or --skip-existing to go on") from error
            done += 1
            progress.update(len(paths))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
