"""`gconet detect`: one 8-bit PNG map per photo, at the photo's own size, mirroring the tree of groups."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from gconet.runtime.atomic import replacing
from gconet.runtime.command_line import EXIT_DONE, Parser, positive
from gconet.runtime.detector import load
from gconet.runtime.errors import UsageError
from gconet.runtime.photos import Group, find_groups
from gconet.runtime.preprocess import FloatArray, to_bytes

DESCRIPTION = "Find the object a group of photos shares and write one map per photo: white is the shared object."
EPILOG = """\
examples:
  gconet detect a.jpg b.jpg c.jpg --out maps       three photos, one group
  gconet detect photos/ --out maps                 a folder is a group; a folder of folders is many, mirrored in maps/

Maps are 8-bit grey PNGs of the photo's size (upright, EXIF orientation applied). A group's maps are written when all of
them are computed, so a bad photo leaves nothing of its group behind."""


def main(arguments: Sequence[str]) -> int:
    """Run `gconet detect`; errors as raised by `find_groups`, `load` and `Detector.detect`."""
    parser = Parser("gconet detect", DESCRIPTION, EPILOG)
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="photos, or folders of photos")
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to run (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("maps"), help="output folder (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto or cpu (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the engine's choice)")
    parser.add_argument("--overwrite", action="store_true", help="replace maps that exist already")
    options = parser.parse_args(arguments)

    groups = find_groups(options.photos)
    outputs = [_map_paths(group, options.out) for group in groups]
    _check_outputs(groups, outputs, options.overwrite)
    detector = load(options.bundle, options.device, options.threads)

    verified = detector.bundle.manifest.max_group
    for group in groups:
        if len(group.photos) > verified:
            print(f"note: a group of {len(group.photos)} photos; {options.bundle} was verified up to {verified}",
                  file=sys.stderr)  # fmt: skip

    with tqdm(total=sum(len(group.photos) for group in groups), unit="photo", disable=None) as progress:
        for group, paths in zip(groups, outputs, strict=True):
            for path, saliency in zip(paths, detector.detect(group.photos), strict=True):
                _write_map(path, saliency)
            progress.update(len(paths))
    count = sum(map(len, outputs))
    print(f"{count} map{'s' if count > 1 else ''} of {len(groups)} group{'s' if len(groups) > 1 else ''} "
          f"in {options.out}")  # fmt: skip
    return EXIT_DONE


def _map_paths(group: Group, out: Path) -> list[Path]:
    return [out / group.folder / f"{photo.stem}.png" for photo in group.photos]


def _check_outputs(groups: list[Group], outputs: list[list[Path]], overwrite: bool) -> None:
    photos = {photo.resolve() for group in groups for photo in group.photos}
    for path in (path for paths in outputs for path in paths):
        if path.resolve() in photos:
            raise UsageError(f"the map {path} would replace a photo: choose another --out")
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists already: choose another --out or pass --overwrite")


def _write_map(path: Path, saliency: FloatArray) -> None:
    with replacing(path) as temporary:
        Image.fromarray(to_bytes(saliency)).save(temporary, format="PNG")
