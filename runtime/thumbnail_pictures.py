"""Frames as pictures: the thumbnail itself, and the photo with the boxes drawn in."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from gconet.runtime.co_location import Box
from gconet.runtime.composition import Colour
from gconet.runtime.errors import UsageError
from gconet.runtime.framing import Frame
from gconet.runtime.preprocess import Photo
from gconet.runtime.saliency_level import check_photo

WHITE: Colour = (255, 255, 255)
YELLOW, RED, DARK = (255, 214, 0), (214, 0, 0), (0, 0, 0)


def thumbnail(photo: Photo, frame: Frame, fill: Colour = WHITE) -> Photo:
    """A photo's thumbnail.

    Parameters
    ----------
    photo : (H, W, 3) uint8 RGB.
    frame : of this photo.
    fill : colour of what lies beyond the photo.

    Returns
    -------
    (h, w, 3) uint8, `frame.shape.pixels` being (w, h).

    Raises
    ------
    PhotoError
        If the photo is no such array.
    UsageError
        If the frame is of a photo of another size.
    """
    _check(photo, frame)
    across, down = frame.shape.pixels
    inside, scale = frame.crop.within(frame.height, frame.width), across / frame.crop.width
    left, right = (round((edge - frame.crop.left) * scale) for edge in (inside.left, inside.right))
    top, bottom = (round((edge - frame.crop.top) * down / frame.crop.height) for edge in (inside.top, inside.bottom))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    part = Image.fromarray(photo).resize(
        (right - left, bottom - top),
        Image.Resampling.LANCZOS,
        (inside.left, inside.top, inside.right, inside.bottom),
        reducing_gap=3.0,
    )
    if part.size == (across, down):
        return np.asarray(part)
    picture = Image.new("RGB", (across, down), fill)
    picture.paste(part, (left, top))
    return np.asarray(picture)


def overlay(photo: Photo, frame: Frame) -> Photo:
    """A photo with its boxes: objects yellow, enlarged red, the crop dashed, and what lies outside the crop darker.

    The lines differ in kind as well, for eyes and printers that tell no colours apart: thin, thick and dashed.

    Returns
    -------
    (H, W, 3) uint8; errors are those of `thumbnail`.
    """
    _check(photo, frame)
    shown = np.zeros(photo.shape[:2], bool)
    inside = frame.crop.within(frame.height, frame.width)
    shown[round(inside.top) : round(inside.bottom), round(inside.left) : round(inside.right)] = True
    picture = Image.fromarray(np.where(shown[..., None], photo, photo // 2))
    draw = ImageDraw.Draw(picture)
    line = max(1, round((frame.height + frame.width) / 500))
    _dashed(draw, inside, line)
    for box, colour, width in ((frame.enlarged, RED, 2 * line), (frame.tight, YELLOW, line)):
        if box is not None:
            _rectangle(draw, box, DARK, width + 2 * (line > 1))
            _rectangle(draw, box, colour, width)
    return np.asarray(picture)


def _check(photo: Photo, frame: Frame) -> None:
    check_photo(photo)
    if photo.shape[:2] != (frame.height, frame.width):
        raise UsageError(
            f"the frame is of a photo of {frame.width}×{frame.height} pixels, this one has "
            f"{photo.shape[1]}×{photo.shape[0]}"
        )


def _corners(box: Box) -> tuple[int, int, int, int]:
    left, top = int(box.left), int(box.top)
    return left, top, max(left, round(box.right) - 1), max(top, round(box.bottom) - 1)


def _rectangle(draw: ImageDraw.ImageDraw, box: Box, colour: Colour, width: int) -> None:
    draw.rectangle(_corners(box), outline=colour, width=width)


def _dashed(draw: ImageDraw.ImageDraw, box: Box, width: int) -> None:
    left, top, right, bottom = _corners(box)
    dash = 6 * width
    for x in range(left, right + 1, 2 * dash):
        for y in (top, bottom):
            draw.line((x, y, min(x + dash, right), y), WHITE, width)
    for y in range(top, bottom + 1, 2 * dash):
        for x in (left, right):
            draw.line((x, y, x, min(y + dash, bottom)), WHITE, width)
