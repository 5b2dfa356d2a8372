"""Cut-outs made ready for a photo, their places on its ground and their shadows."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from backgrounds import Array, Scene, blur, noise
from PIL import Image

MAX_OVERLAP = 0.10  # of the smaller of two objects: a border may be hidden, never the object


class ComposeError(Exception):
    """What cannot be composed, and what to do about it."""


@dataclass(frozen=True)
class Sprite:
    """A cut-out, scaled, turned and lit: `rgb` (h, w, 3) and `alpha` (h, w) in [0, 1]."""

    rgb: Array
    alpha: Array


@dataclass(frozen=True)
class Placed:
    """A sprite with its upper left corner at (`x`, `y`) in the frame, and its `alpha` (H, W) there."""

    sprite: Sprite
    x: int
    y: int
    alpha: Array

    @property
    def foot(self) -> int:
        """The row of the frame where the sprite ends."""
        return self.y + len(self.sprite.alpha)


def find_cutout(folder: Path, name: str) -> Path:
    """Return the file of a cut-out, called either by its Unicode name or by its code point.

    Raises
    ------
    ComposeError
        The folder has neither.
    """
    code_point = f"{ord(unicodedata.lookup(name.upper().replace('-', ' '))):x}"
    candidates = [folder / f"{stem}.webp" for stem in (name, code_point)]
    for path in candidates:
        if path.is_file():
            return path
    raise ComposeError(f"no {name}.webp or {code_point}.webp in {folder}: see LICENSE.md for the cut-outs")


def load_sprite(path: Path, long_side: int, angle: float, flip: bool, rng: np.random.Generator) -> Sprite:
    """Read a cut-out, trim, mirror, scale and turn it, and light it unevenly.

    Raises
    ------
    ComposeError
        The file is no readable picture.
    """
    try:
        image = Image.open(path).convert("RGBA")
    except OSError as error:
        raise ComposeError(f"{path} is no readable picture: fetch it again, see LICENSE.md") from error
    image = image.crop(image.getchannel("A").getbbox())
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    premultiplied = image.convert("RGBa").rotate(angle, Image.Resampling.BICUBIC, expand=True)
    scale = long_side / max(image.size)
    premultiplied = premultiplied.resize(
        (max(1, round(premultiplied.width * scale)), max(1, round(premultiplied.height * scale))),
        Image.Resampling.LANCZOS,
    )
    image = premultiplied.convert("RGBA")
    image = image.crop(image.getchannel("A").point([255 * (level > 64) for level in range(256)]).getbbox())
    pixels = np.asarray(image, np.float64) / 255
    rgb, alpha = pixels[..., :3], pixels[..., 3]
    grey = rgb.mean(axis=2, keepdims=True)
    rgb = grey + (rgb - grey) * rng.uniform(0.82, 0.95)  # renders are more saturated than photos
    rows, cols = np.mgrid[0 : alpha.shape[0], 0 : alpha.shape[1]].astype(np.float64)
    surface = 0.96 + 0.08 * noise(rng, cols / 9, rows / 9, 4)
    light = rng.uniform(0.86, 1.04) * surface * (1.06 - 0.22 * rows / alpha.shape[0])
    return Sprite(rgb * light[..., None], alpha)


def place(rng: np.random.Generator, sprite: Sprite, scene: Scene, placed: list[Placed]) -> Placed:
    """Find a random place on the scene's ground where the sprite hides, or is hidden by, hardly anything.

    Raises
    ------
    ComposeError
        No such place turned up.
    """
    height, width = scene.pixels.shape[:2]
    h, w = sprite.alpha.shape
    margin = max(4, height // 40)
    first_foot = max(h + margin, scene.horizon + (height - scene.horizon) // 6)
    for _ in range(400):
        if w + 2 * margin > width or first_foot > height - margin:
            break
        x = int(rng.integers(margin, width - w - margin + 1))
        y = int(rng.integers(first_foot, height - margin + 1)) - h
        alpha = np.zeros((height, width))
        alpha[y : y + h, x : x + w] = sprite.alpha
        area = alpha.sum()
        shared = [np.minimum(alpha, one.alpha).sum() / min(area, one.alpha.sum()) for one in placed]
        feet_apart = all(abs(y + h - other.foot) > 3 for other in placed)
        if feet_apart and all(share <= MAX_OVERLAP for share in shared):
            return Placed(sprite, x, y, alpha)
    raise ComposeError("found no room for every object: choose smaller sizes or another --seed")


def shadow(item: Placed, scene: Scene, slant: float) -> Array:
    """Return the light (H, W) the object takes: dark under its foot, softer where its shadow falls."""
    height, width = item.alpha.shape
    h, w = item.sprite.alpha.shape
    mask = Image.fromarray((item.alpha * 255).astype(np.uint8))
    if scene.from_above:
        # Each output pixel looks up its source: the shadow lies `slant` to the side and below.
        move = (1, 0, -slant * 0.08 * w, 0, 1, -0.06 * h)
        cast = np.asarray(mask.transform(mask.size, Image.Transform.AFFINE, move), np.float64) / 255
        return np.maximum(0.42 * blur(cast, 0.035 * h + 2), 0.40 * blur(item.alpha, 2.5))
    foot = item.foot - 0.03 * h
    # A standing thing's shadow is flattened towards the viewer and leans aside.
    squash, lean = 3.2, slant * 2.0
    fall = (1, lean, -lean * foot, 0, -squash, foot * (1 + squash))
    cast = np.asarray(mask.transform(mask.size, Image.Transform.AFFINE, fall), np.float64) / 255
    base = np.flatnonzero(item.sprite.alpha[int(0.9 * h) :].max(axis=0) > 0.3)
    centre, half = item.x + (base[0] + base[-1]) / 2, max(6.0, (base[-1] - base[0]) / 2)
    rows, cols = np.mgrid[0:height, 0:width]
    across, down = (cols - centre) / half, (rows - foot) / (0.045 * h + 2)
    contact = np.clip(1.25 - across**2 - down**2, 0, 1)
    wide = np.clip(1.0 - (across / 1.35) ** 2 - (down / 2.6) ** 2, 0, 1)
    passed = (1 - 0.62 * blur(contact, 2)) * (1 - 0.40 * blur(wide, 5))
    return 1 - passed * (1 - 0.28 * blur(cast, 0.02 * h + 2))
