"""A picture sheet: photos, truth and the maps of several methods, one row each, group beside group.

python bench/sheet.py --images images --gt gts --maps baseline=DIR --maps ours=DIR --groups COCO256/bus --out F.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import argparse
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from gconet.runtime.atomic import replacing
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, run
from gconet.runtime.errors import UsageError
from gconet.runtime.photos import find_groups, read_photo

CELL, MARGIN, LABEL_WIDTH, TITLE_HEIGHT = 128, 4, 84, 22


def draw_sheet(photos: Mapping[str, Sequence[Path]], rows: Mapping[str, Path]) -> Image.Image:
    """Draw a sheet.

    Parameters
    ----------
    photos : the photos to show, by name of their group.
    rows : by title, folders of pictures that mirror the groups (`<folder>/<group>/<photo's stem>.png`).

    Raises
    ------
    UsageError
        If a picture is missing.
    """
    columns = sum(map(len, photos.values()))
    titles = ["photo", *rows]
    size = LABEL_WIDTH + columns * (CELL + MARGIN), TITLE_HEIGHT + len(titles) * (CELL + MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row, title in enumerate(titles):
        draw.text((4, TITLE_HEIGHT + row * (CELL + MARGIN) + CELL // 2), title, "black")
    column = 0
    for group, paths in photos.items():
        draw.text((_left(column), 4), group, "black")
        for path in paths:
            for row, picture in enumerate([path, *(folder / group / f"{path.stem}.png" for folder in rows.values())]):
                if not picture.is_file():
                    raise UsageError(f"no picture at {picture}: the maps must mirror the groups")
                cell = Image.fromarray(read_photo(picture)).resize((CELL, CELL), Image.Resampling.LANCZOS)
                sheet.paste(cell, (_left(column), TITLE_HEIGHT + row * (CELL + MARGIN)))
            column += 1
    return sheet


def main(arguments: Sequence[str]) -> int:
    """Write a sheet of the first photos of each group."""
    parser = Parser("sheet.py", "Draw photos, truth and maps side by side.")
    parser.add_argument("--images", type=Path, required=True, help="folder of groups of photos")
    parser.add_argument("--gt", type=Path, required=True, help="the same tree of masks")
    parser.add_argument("--maps", action="append", type=_named_folder, required=True, metavar="TITLE=DIR",
                        help="the same tree of maps; repeatable")  # fmt: skip
    parser.add_argument("--groups", nargs="+", help="which groups (default: all)")
    parser.add_argument("--photos", type=positive, default=3, help="photos of each group (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="picture to write; its suffix decides the format")
    options = parser.parse_args(arguments)
    groups = {group.folder.as_posix(): group.photos for group in find_groups([options.images])}
    unknown = [name for name in options.groups or [] if name not in groups]
    if unknown:
        raise UsageError(f"no group {', '.join(unknown)} in {options.images}")
    photos = {name: groups[name][: options.photos] for name in options.groups or groups}
    sheet = draw_sheet(photos, {"truth": options.gt, **dict(options.maps)})
    with replacing(options.out) as temporary:
        sheet.save(temporary, format=Image.registered_extensions().get(options.out.suffix.lower(), "PNG"))
    return EXIT_DONE


def _left(column: int) -> int:
    return LABEL_WIDTH + column * (CELL + MARGIN)


def _named_folder(text: str) -> tuple[str, Path]:
    title, separator, folder = text.partition("=")
    if not separator or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not TITLE=DIR with an existing folder")
    return title, Path(folder)


if __name__ == "__main__":
    sys.exit(run(main))
