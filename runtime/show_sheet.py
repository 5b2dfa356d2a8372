"""The sheet of a group, as in the paper's figures 5 and 6: photo, attention, map, overlay; a column for each photo."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gconet.runtime.command_line import in_one_line
from gconet.runtime.extras import needing
from gconet.runtime.preprocess import Photo
from gconet.runtime.show_group import ShownGroup, ShownPhoto
from gconet.runtime.show_pictures import (
    THRESHOLD,
    fitted,
    grey,
    heat,
    overlay,
    relative_attention,
    shrink_map,
    upsample_attention,
)

ROWS = ("photo", "attention", "map", "overlay")
CELL_HEIGHT, CELL_WIDTH = 144, 256  # of the box that a photo is fitted into
GAP, EDGE, LABEL_WIDTH, TITLE_HEIGHT, NAME_HEIGHT, LEGEND_HEIGHT = 6, 12, 82, 34, 20, 34
BAR_WIDTH, BAR_HEIGHT = 120, 12
TEXT, TITLE = 13, 17  # sizes of letters in pixels


def draw_sheet(group: ShownGroup) -> Image.Image:
    """Draw the sheet of a group's photos.

    The attention of each photo is scaled to its own largest value and brought to the photo's size; the overlay dims the
    photo where the map is low and has a contour, white beside black, where it passes 0.5.

    Raises
    ------
    TargetError
        If matplotlib is missing.
    """
    columns = [_cells(photo) for photo in group.photos]
    widths = [cells[0].shape[1] for cells in columns]
    legend = f"largest of each photo        contour in the overlay: map = {THRESHOLD:g}"
    legend_width = LABEL_WIDTH + 20 + BAR_WIDTH + 10 + round(_font(TEXT).getlength(legend))
    title = in_one_line(group.name if group.count > 1 else f"{group.name} (one photo)")
    if group.count > 1:
        title += f": {group.count} photos" if group.count == len(columns) else (
            f": the first {len(columns)} of {group.count} photos; attention and maps are of all {group.count}"
        )  # fmt: skip
    title_width = round(_font(TITLE).getlength(title))
    width = 2 * EDGE + max(LABEL_WIDTH + sum(widths) + GAP * (len(widths) - 1), legend_width, title_width)
    top = EDGE + TITLE_HEIGHT
    height = top + len(ROWS) * (CELL_HEIGHT + GAP) + NAME_HEIGHT + LEGEND_HEIGHT + EDGE

    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((EDGE, EDGE), title, "black", _font(TITLE))
    for row, label in enumerate(ROWS):
        middle = top + row * (CELL_HEIGHT + GAP) + CELL_HEIGHT // 2
        draw.text((EDGE, middle), label, "black", _font(TEXT), anchor="lm")
    left = EDGE + LABEL_WIDTH
    for photo, cells, column in zip(group.photos, columns, widths, strict=True):
        for row, cell in enumerate(cells):
            y = top + row * (CELL_HEIGHT + GAP) + (CELL_HEIGHT - cell.shape[0]) // 2
            sheet.paste(Image.fromarray(cell), (left, y))
        below = top + len(ROWS) * (CELL_HEIGHT + GAP)
        draw.text((left + column // 2, below), _short(photo.path, column), "black", _font(TEXT), anchor="ma")
        left += column + GAP
    _draw_legend(sheet, draw, legend, height - EDGE - LEGEND_HEIGHT // 2)
    return sheet


def _cells(photo: ShownPhoto) -> tuple[Photo, ...]:
    """The four pictures of a photo, all of one size."""
    width, height = fitted(photo.picture.shape[1], photo.picture.shape[0], CELL_WIDTH, CELL_HEIGHT)
    small = Image.fromarray(photo.picture).resize((width, height), Image.Resampling.LANCZOS)
    picture = np.asarray(small)
    saliency = shrink_map(photo.saliency, height, width)
    attention = upsample_attention(relative_attention(photo.attention), height, width)
    return picture, heat(attention), grey(saliency), overlay(picture, saliency)


def _draw_legend(sheet: Image.Image, draw: ImageDraw.ImageDraw, text: str, middle: int) -> None:
    left = EDGE + LABEL_WIDTH + 20
    draw.text((EDGE, middle), "attention:", "black", _font(TEXT), anchor="lm")
    draw.text((left - 8, middle), "0", "black", _font(TEXT), anchor="rm")
    ramp = np.repeat(np.linspace(0, 1, BAR_WIDTH, dtype=np.float32)[None], BAR_HEIGHT, axis=0)
    sheet.paste(Image.fromarray(heat(ramp)), (left, middle - BAR_HEIGHT // 2))
    draw.text((left + BAR_WIDTH + 8, middle), text, "black", _font(TEXT), anchor="lm")


def _short(path: Path, width: int) -> str:
    """A photo's name, its middle left out where it is wider than its column."""
    name = in_one_line(path.stem)
    kept, short = len(name), name
    while _font(TEXT).getlength(short) > width and kept > 1:
        kept -= 1
        short = f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"
    return short


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has the letters of most European scripts."""
    with needing("pictures", "a sheet"):
        import matplotlib
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
