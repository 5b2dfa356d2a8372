"""Turning a photo and its mask into one training example: geometry, colour, pasted objects."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from gconet.train.config import Augmentation

Picture = Image.Image


def resize_pair(photo: Picture, mask: Picture, size: int) -> tuple[Picture, Picture]:
    """Both at size × size, as the authors do it: the photo bilinear, the mask by nearest neighbour."""
    shape = (size, size)
    return photo.resize(shape, Image.Resampling.BILINEAR), mask.resize(shape, Image.Resampling.NEAREST)


def augment(photo: Picture, mask: Picture, options: Augmentation, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Flip, turn, zoom and recolour a square photo (RGB) and its mask (L) of the same size."""
    if options.flip and rng.random() < 0.5:
        photo, mask = (picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in (photo, mask))
    if options.rotation or options.scale != (1.0, 1.0):
        photo, mask = _rotate_and_zoom(photo, mask, options, rng)
    if options.colour:
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            photo = enhancer(photo).enhance(1 + rng.uniform(-options.colour, options.colour))
    return photo, mask


def _rotate_and_zoom(
    photo: Picture, mask: Picture, options: Augmentation, rng: np.random.Generator
) -> tuple[Picture, Picture]:
    angle = math.radians(rng.uniform(-options.rotation, options.rotation))
    zoom = rng.uniform(*options.scale)
    centre = photo.width / 2
    # Zoomed photos are also moved off centre, by little enough not to look past the border for long.
    reach = 0.0 if options.scale == (1.0, 1.0) else 0.1 * photo.width
    shift = rng.uniform(-reach, reach, 2)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    matrix = (
        cos, sin, centre - cos * (centre + shift[0]) - sin * (centre + shift[1]),
        -sin, cos, centre + sin * (centre + shift[0]) - cos * (centre + shift[1]),
    )  # fmt: skip
    fill = tuple(int(value) for value in np.asarray(photo).reshape(-1, 3).mean(axis=0))
    method = Image.Transform.AFFINE
    return (
        photo.transform(photo.size, method, matrix, Image.Resampling.BILINEAR, fillcolor=fill),
        mask.transform(mask.size, method, matrix, Image.Resampling.NEAREST, fillcolor=0),
    )


def paste(
    photo: Picture, cutout: Picture, share: tuple[float, float], rng: np.random.Generator
) -> tuple[Picture, NDArray[np.float32]]:
    """Paste an RGBA cut-out at a random place, angle and size, its longer side `share` of the photo's side.

    Returns
    -------
    The photo, and the cut-out's opacity over it, (H, W) float32 in [0, 1].
    """
    side = int(photo.width * rng.uniform(*share))
    box = cutout.getbbox()
    piece = cutout.crop(box) if box else cutout
    factor = side / max(piece.size)
    piece = piece.resize(
        (max(1, int(piece.width * factor)), max(1, int(piece.height * factor))), Image.Resampling.BILINEAR
    )
    if rng.random() < 0.5:
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    piece = piece.rotate(rng.uniform(-30, 30), Image.Resampling.BILINEAR, expand=True)
    brightness = ImageEnhance.Brightness(piece.convert("RGB")).enhance(rng.uniform(0.6, 1.2))
    x = int(rng.integers(-piece.width // 6, max(photo.width - piece.width * 5 // 6, 1)))
    y = int(rng.integers(-piece.height // 6, max(photo.height - piece.height * 5 // 6, 1)))
    layer = Image.new("L", photo.size)
    layer.paste(piece.getchannel("A"), (x, y))
    result = photo.copy()
    result.paste(brightness, (x, y), piece.getchannel("A"))
    return result, np.asarray(layer, np.float32) / np.float32(255)
