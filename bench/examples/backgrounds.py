"""Procedural photo backgrounds made of value noise: no external pictures.

Every kind in `KINDS` is a function ``(rng, height, width) -> Scene``. The ground is drawn in perspective, so
that what stands on it can be placed by the row its foot touches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFilter

Array = NDArray[np.float64]
LATTICE = 64  # side of the random lattice behind the noise; it repeats after this many cells


@dataclass(frozen=True)
class Scene:
    """A background: `pixels` (H, W, 3) in about [0, 1], and the row `horizon` where its ground begins."""

    pixels: Array
    horizon: int
    from_above: bool = False


@dataclass(frozen=True)
class Grid:
    """Coordinates of every pixel, each (H, W): in the frame (`x`, `y`, in heights) and on the ground."""

    x: Array
    y: Array
    near: Array  # 0 at the horizon and above it, 1 at the lower edge
    u: Array  # ground coordinate across
    v: Array  # ground coordinate into the depth


def make_grid(height: int, width: int, horizon: int) -> Grid:
    """Return the coordinates of a frame whose ground begins at row `horizon`."""
    rows, cols = np.mgrid[0:height, 0:width].astype(np.float64)
    near = np.clip((rows - horizon) / (height - horizon), 0.0, 1.0)
    depth = 1.0 / (near + 0.22)
    return Grid(cols / height, rows / height, near, (cols - width / 2) / height * depth, 1.3 * depth)


def noise(rng: np.random.Generator, u: Array, v: Array, octaves: int = 4) -> Array:
    """Fractal value noise in about [0, 1] at the coordinates `u`, `v` (one lattice cell per unit)."""
    total, weight, norm = np.zeros_like(u), 1.0, 0.0
    for octave in range(octaves):
        lattice = rng.random((LATTICE, LATTICE))
        a, b = u * 2**octave + rng.random() * LATTICE, v * 2**octave + rng.random() * LATTICE
        i, j = np.floor(a).astype(int), np.floor(b).astype(int)
        p, q = a - i, b - j
        p, q = p * p * (3 - 2 * p), q * q * (3 - 2 * q)
        i0, i1, j0, j1 = i % LATTICE, (i + 1) % LATTICE, j % LATTICE, (j + 1) % LATTICE
        upper = lattice[j0, i0] * (1 - p) + lattice[j0, i1] * p
        lower = lattice[j1, i0] * (1 - p) + lattice[j1, i1] * p
        total += weight * (upper * (1 - q) + lower * q)
        norm += weight
        weight *= 0.5
    return total / norm


def step(low: float, high: float, value: Array) -> Array:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def mix(first: ArrayLike, second: ArrayLike, weight: Array) -> Array:
    """Blend two colours, or images (H, W, 3), by a `weight` (H, W) in [0, 1]."""
    return np.asarray(first) * (1 - weight[..., None]) + np.asarray(second) * weight[..., None]


def blur(image: Array, radius: float) -> Array:
    """Gaussian blur of an image (H, W, 3) or a map (H, W) in [0, 1]; `radius` in pixels."""
    eight_bit = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    return np.asarray(eight_bit.filter(ImageFilter.GaussianBlur(radius)), np.float64) / 255


def join(far: Array, ground: Array, grid: Grid, horizon: int, haze: float) -> Array:
    """Put `far` above the `ground`; towards and behind the horizon both go out of focus (`haze` pixels)."""
    image = np.where((np.arange(far.shape[0]) < horizon)[:, None, None], far, ground)
    return mix(blur(image, haze), image, step(0.0, 0.45, grid.near))


def pick(rng: np.random.Generator, *colours: tuple[float, float, float]) -> Array:
    """Choose one of the `colours` and vary it slightly."""
    return np.clip(np.array(colours[rng.integers(len(colours))]) + rng.normal(0, 0.015, 3), 0, 1)


def sky(rng: np.random.Generator, g: Grid, clouds: float) -> Array:
    """Paint a blue gradient with soft clouds; `clouds` in [0, 1] is how much they cover."""
    blue = mix(pick(rng, (0.30, 0.52, 0.82), (0.38, 0.60, 0.86)), (0.80, 0.88, 0.94), step(0.0, 0.5, g.y))
    cover = step(0.62 - 0.25 * clouds, 0.85 - 0.2 * clouds, noise(rng, g.x * 2.2, g.y * 5, 6))
    return mix(blue, (0.95, 0.95, 0.96), cover * 0.9)


def bokeh(rng: np.random.Generator, g: Grid, tone: Array) -> Array:
    """Paint a wall far out of focus with discs of light."""
    wall = tone * (0.45 + 0.6 * noise(rng, g.x * 2, g.y * 2, 2))[..., None]
    for _ in range(26):
        x, y = rng.uniform(0, g.x.max()), rng.uniform(-0.05, 0.6)
        radius = rng.uniform(0.02, 0.065)
        disc = 1 - step(radius * 0.85, radius, np.hypot(g.x - x, g.y - y))
        wall = mix(
            wall,
            pick(rng, (1.0, 0.85, 0.55), (0.95, 0.92, 0.85), (0.7, 0.8, 0.9)),
            disc * rng.uniform(0.1, 0.42),
        )
    return blur(wall, 3)


def planks(rng: np.random.Generator, across: Array, along: Array, tone: Array) -> Array:
    """Paint wooden boards of unit width lying side by side, with grain along them."""
    board = np.floor(across)
    shade = 0.85 + 0.3 * rng.random(LATTICE)[board.astype(int) % LATTICE]
    warp = noise(rng, across * 1.5, along * 0.25 + board * 7.3, 3)
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * (across * 5 + warp * 7))
    fibre = noise(rng, across * 14, along * 0.7 + board * 3.1, 3)
    edge = np.minimum(across - board, board + 1 - across)
    light: Array = shade * (0.78 + 0.10 * grain + 0.28 * fibre) * (0.45 + 0.55 * step(0.0, 0.035, edge))
    return tone * light[..., None]


def meadow(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Paint sky with clouds, a blurred tree line and grass."""
    horizon = int(height * rng.uniform(0.30, 0.42))
    g = make_grid(height, width, horizon)
    ridge = horizon / height - 0.03 - 0.13 * noise(rng, g.x * 4, np.zeros_like(g.x), 5)
    trees = (
        pick(rng, (0.20, 0.34, 0.20), (0.25, 0.38, 0.28)) * (0.6 + 0.8 * noise(rng, g.x * 30, g.y * 30, 3))[..., None]
    )
    far = mix(sky(rng, g, rng.uniform(0.3, 1.0)), trees, step(-0.004, 0.004, g.y - ridge))
    patches = noise(rng, g.u * 2.5, g.v * 2.5, 4)
    blades = noise(rng, g.u * 55, g.v * 9, 3) * 0.6 + noise(rng, g.x * 130, g.y * 26, 2) * 0.4
    grass = mix((0.24, 0.38, 0.12), pick(rng, (0.55, 0.66, 0.25), (0.46, 0.62, 0.24)), step(0.2, 0.8, patches))
    grass = grass * (0.50 + 0.95 * blades)[..., None]
    return Scene(join(far, grass, g, horizon, 3.0), horizon)


def beach(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Paint sky, a strip of sea and a sandy floor with soft ripples."""
    horizon = int(height * rng.uniform(0.32, 0.42))
    g = make_grid(height, width, horizon)
    waterline = horizon / height - 0.13
    waves = noise(rng, g.x * 6, g.y * 90, 4)
    sea = mix(pick(rng, (0.14, 0.42, 0.55), (0.12, 0.36, 0.52)), (0.55, 0.76, 0.78), step(0.35, 0.9, waves))
    far = mix(sky(rng, g, 0.5), sea, step(-0.001, 0.001, g.y - waterline))
    foam = step(0.025, 0.0, horizon / height - g.y - 0.02 * noise(rng, g.x * 7, g.x * 0, 3))
    far = mix(far, (0.93, 0.95, 0.94), foam * 0.85)
    dunes = noise(rng, g.u * 1.6, g.v * 3.2, 4)
    ripples = np.sin(2 * np.pi * (g.v * 5 + 2.2 * noise(rng, g.u * 1.5, g.v * 1.5, 3)))
    light = 0.72 + 0.36 * dunes + 0.035 * ripples + 0.16 * (noise(rng, g.x * 150, g.y * 150, 2) - 0.5)
    sand = pick(rng, (0.86, 0.75, 0.57), (0.82, 0.71, 0.55)) * light[..., None]
    return Scene(join(far, sand, g, horizon, 2.5), horizon)


def table(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Paint a wooden table top in front of a wall far out of focus."""
    horizon = int(height * rng.uniform(0.25, 0.36))
    g = make_grid(height, width, horizon)
    wall = bokeh(rng, g, pick(rng, (0.42, 0.36, 0.33), (0.32, 0.40, 0.38), (0.45, 0.42, 0.50)))
    tone = pick(rng, (0.72, 0.52, 0.34), (0.58, 0.40, 0.27), (0.80, 0.66, 0.48))
    boards = planks(rng, g.v * 2.2, g.u * 3, tone) * (0.8 + 0.25 * g.near)[..., None]
    return Scene(join(wall, boards, g, horizon, 3.0), horizon)


def room(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Paint a plain wall with a skirting board and a floor of wooden boards."""
    horizon = int(height * rng.uniform(0.34, 0.45))
    g = make_grid(height, width, horizon)
    light = 1.08 - 0.35 * np.hypot(g.x - rng.uniform(0, g.x.max()), g.y) + 0.10 * noise(rng, g.x * 3, g.y * 3, 5)
    wall = pick(rng, (0.66, 0.73, 0.72), (0.80, 0.74, 0.64), (0.62, 0.66, 0.74)) * light[..., None]
    skirting = horizon / height - g.y
    wall = mix(wall, np.array((0.88, 0.87, 0.84)) * (light * 0.95)[..., None], step(0.062, 0.060, skirting))
    wall = wall * (1 - 0.35 * step(0.008, 0.0, np.minimum(np.abs(skirting - 0.064), skirting)))[..., None]
    boards = planks(rng, g.u * 2.4, g.v * 3, pick(rng, (0.66, 0.47, 0.31), (0.74, 0.60, 0.44), (0.50, 0.37, 0.28)))
    return Scene(join(wall, boards * (0.82 + 0.25 * g.near)[..., None], g, horizon, 1.6), horizon)


def street(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Paint a brick wall, a kerb and worn asphalt."""
    horizon = int(height * rng.uniform(0.32, 0.42))
    g = make_grid(height, width, horizon)
    course = np.floor(g.y * 22)
    across = g.x * 9 + 0.5 * (course % 2)
    brick = np.floor(across)
    joint = np.minimum(
        np.minimum(across - brick, brick + 1 - across) * 2.4,
        np.minimum(g.y * 22 - course, course + 1 - g.y * 22),
    )
    shade = rng.random((LATTICE, LATTICE))[course.astype(int) % LATTICE, brick.astype(int) % LATTICE]
    tone = pick(rng, (0.60, 0.36, 0.28), (0.68, 0.56, 0.46), (0.52, 0.40, 0.38))
    wall = tone * (0.70 + 0.35 * shade + 0.25 * noise(rng, g.x * 40, g.y * 40, 3))[..., None]
    wall = (
        mix((0.68, 0.65, 0.61), wall, step(0.06, 0.14, joint))
        * (0.85 + 0.2 * noise(rng, g.x * 2, g.y * 2, 3))[..., None]
    )
    wall = mix(wall, (0.62, 0.61, 0.59), step(0.041, 0.039, horizon / height - g.y))
    light = 0.75 + 0.25 * noise(rng, g.u * 2, g.v * 2, 4) + 0.45 * (noise(rng, g.u * 60, g.v * 60, 2) - 0.5)
    asphalt = pick(rng, (0.56, 0.56, 0.58), (0.62, 0.60, 0.58)) * light[..., None]
    kerb_shadow = 1 - 0.45 * step(0.05, 0.0, g.near)
    return Scene(join(wall, asphalt * kerb_shadow[..., None], g, horizon, 2.0), horizon)


def cloth(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Paint a woven, checked cloth with soft folds, seen from above."""
    g = make_grid(height, width, 0)
    turn = rng.uniform(-0.4, 0.4)
    x, y = g.x * np.cos(turn) - g.y * np.sin(turn), g.x * np.sin(turn) + g.y * np.cos(turn)
    bend = 0.03 * noise(rng, g.x * 2, g.y * 2, 3)
    x, y = x + bend, y - bend
    stripes = step(-0.15, 0.15, np.sin(2 * np.pi * 4.5 * x)) + step(-0.15, 0.15, np.sin(2 * np.pi * 4.5 * y))
    dye = pick(rng, (0.36, 0.48, 0.64), (0.62, 0.42, 0.38), (0.46, 0.55, 0.42))
    colour = mix((0.90, 0.87, 0.80), dye, stripes * 0.42)
    weave = np.sin(2 * np.pi * 75 * x) * np.sin(2 * np.pi * 75 * y)
    folds = noise(rng, x * 1.6 + y, y * 3.2, 3)
    light = 0.70 + 0.45 * folds + 0.05 * weave + 0.12 * (noise(rng, x * 90, y * 20, 2) - 0.5)
    return Scene(colour * light[..., None], 0, from_above=True)


KINDS: dict[str, Callable[[np.random.Generator, int, int], Scene]] = {
    scene.__name__: scene for scene in (meadow, beach, table, room, street, cloth)
}
