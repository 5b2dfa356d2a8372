"""A picture of what becomes of the example photos: map, boxes, thumbnails, cut-out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from gconet.bench.photo_groups import EXAMPLES
from gconet.runtime.co_location import locate
from gconet.runtime.composition import compose
from gconet.runtime.cutout import cutout
from gconet.runtime.detector import load
from gconet.runtime.framing import Shape, central_frame, frame_group
from gconet.runtime.photos import find_groups, read_photo
from gconet.runtime.preprocess import FloatArray, Photo, to_bytes
from gconet.runtime.thumbnail_pictures import overlay, thumbnail

CELL, GAP, TITLES = 150, 6, 92
PHOTOS = 3  # of each group
SHAPES = (Shape(1, 1, CELL), Shape(4, 3, CELL))
SQUARES = 12  # pixels of the pattern that stands for transparency
ROWS = ("photo", "map", "boxes", *(f"{shape.across}:{shape.down}" for shape in SHAPES), "cut-out", "on a colour")


def draw_sheet(bundle: Path) -> Image.Image:
    """Run a bundle on the example groups and draw their first photos; errors as raised by `load`."""
    detector = load(bundle)
    columns = []
    for group in find_groups([EXAMPLES]):
        photos = [read_photo(path) for path in group.photos]
        columns += _columns(photos, detector.detect(photos))[:PHOTOS]
    sheet = Image.new("RGB", (TITLES + len(columns) * (CELL + GAP), len(ROWS) * (CELL + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, title in enumerate(ROWS):
        draw.text((6, row * (CELL + GAP) + CELL // 2), title, "black")
    for column, cells in enumerate(columns):
        for row, cell in enumerate(cells):
            picture = Image.fromarray(cell)
            picture.thumbnail((CELL, CELL))
            left = TITLES + column * (CELL + GAP) + (CELL - picture.width) // 2
            sheet.paste(picture, (left, row * (CELL + GAP) + (CELL - picture.height) // 2))
    return sheet


def _columns(photos: list[Photo], maps: list[FloatArray]) -> list[list[Photo]]:
    locations = [locate(saliency) for saliency in maps]
    framed = [frame_group(locations, shape) for shape in SHAPES]
    columns = []
    for photo, saliency, *found in zip(photos, maps, *framed, strict=True):
        height, width = saliency.shape
        frames = [frame or central_frame(height, width, shape) for frame, shape in zip(found, SHAPES, strict=True)]
        alpha = cutout(photo, saliency)
        whole = np.full(saliency.shape, 255, np.uint8) if alpha is None else alpha
        columns.append([
            photo,
            np.repeat(to_bytes(saliency)[..., None], 3, axis=2),
            overlay(photo, frames[0]),
            *(thumbnail(photo, frame) for frame in frames),
            compose(photo, whole, _squares(height, width)),
            compose(photo, whole, (255, 236, 179)),
        ])  # fmt: skip
    return columns


def _squares(height: int, width: int) -> Photo:
    rows, columns = np.ogrid[:height, :width]
    light = (rows // SQUARES + columns // SQUARES) % 2 == 0
    return np.repeat(np.where(light, 255, 200).astype(np.uint8)[..., None], 3, axis=2)
