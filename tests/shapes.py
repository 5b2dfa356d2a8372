"""A data set of coloured shapes: groups that share one, cut-outs, all made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = {"disc": (220, 60, 50), "square": (50, 90, 220), "triangle": (60, 180, 80)}


def make_data(root: Path, photos: int = 4, size: tuple[int, int] = (96, 80)) -> Path:
    """Write images/toys/<shape> and gts/toys/<shape>; each photo also shows another group's shape."""
    rng = np.random.default_rng(0)
    names = list(SHAPES)
    for index, name in enumerate(names):
        for number in range(photos):
            photo = Image.fromarray(rng.integers(90, 160, (size[1], size[0], 3), np.uint8))
            mask = Image.new("L", size)
            other = names[(index + 1 + number % 2) % len(names)]
            left = number % 2 == 0
            _draw(photo, other, (size[0] * (3 if left else 1) // 4, size[1] // 2), 14, SHAPES[other])
            centre = (size[0] * (1 if left else 3) // 4 + number, size[1] // 2 + number)
            _draw(photo, name, centre, 16, SHAPES[name])
            _draw(mask, name, centre, 16, 255)
            for folder, picture, suffix in (("images", photo, ".jpg"), ("gts", mask, ".png")):
                path = root / folder / "toys" / name / f"{number}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
    return root


def make_cutouts(folder: Path) -> Path:
    """Write two RGBA cut-outs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("disc", "triangle"):
        cutout = Image.new("RGBA", (64, 64))
        _draw(cutout, name, (32, 32), 28, (250, 220, 40, 255))
        cutout.save(folder / f"{name}.png")
    return folder


def _draw(picture: Image.Image, shape: str, centre: tuple[int, int], radius: int, colour: object) -> None:
    draw, (x, y) = ImageDraw.Draw(picture), centre
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "disc":
        draw.ellipse(box, fill=colour)  # type: ignore[arg-type]
    elif shape == "square":
        draw.rectangle(box, fill=colour)  # type: ignore[arg-type]
    else:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)  # type: ignore[arg-type]
