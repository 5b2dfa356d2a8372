"""Compose the example groups: rendered cut-outs on procedural backgrounds, each photo with its mask.

Every photo of a group shows the group's common object and a few objects that no other photo of the group
shows, some of them larger, so that only a look at the whole group tells which one is shared.

    python bench/examples/compose.py --cutouts DIR [--out bench/examples] [--seed 0] [--force]

`DIR` holds RGBA cut-outs, as ``red-apple.webp`` or by code point as ``1f34e.webp``; LICENSE.md says where
they come from. The same seed gives the same pictures.
"""

from __future__ import annotations

import argparse
import io
import sys
import zlib
from pathlib import Path

import numpy as np
from backgrounds import KINDS, Array, blur
from groups import GROUPS, Photo
from PIL import Image
from sprites import ComposeError, Placed, find_cutout, load_sprite, place, shadow

HERE = Path(__file__).parent
JPEG_QUALITIES = (88, 84, 80, 76, 72)  # the first that fits is taken
MAX_BYTES = 90_000
OTHERS_TILT = 2.5  # degrees either way for what stands beside the common object
FLAT_TILT = 70.0  # degrees either way for what lies on a surface seen from above


def develop(image: Array, rng: np.random.Generator) -> Image.Image:
    """Make a rendered frame look taken: colour cast, exposure, vignette, slight blur and sensor noise."""
    height, width = image.shape[:2]
    rows, cols = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image = image * rng.uniform(0.97, 1.03, 3) * rng.uniform(1.02, 1.16)
    image = image * (1 - rng.uniform(0.04, 0.12) * (rows**2 + cols**2))[..., None]
    image = blur(0.02 + 0.96 * image, rng.uniform(0.45, 0.75))
    image = image + rng.normal(0, 0.010, (height, width, 1)) + rng.normal(0, 0.006, image.shape)
    return Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))


def compose(spec: Photo, tilt: float, cutouts: Path, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Return the photo (RGB) and its mask (L, 255 where the common object is visible, else 0)."""
    width, height = spec.size
    scene = KINDS[spec.scene](rng, height, width)
    placed: list[Placed] = []
    for item in (spec.common, *spec.others):
        lean = FLAT_TILT if scene.from_above else tilt if item is spec.common else OTHERS_TILT
        path = find_cutout(cutouts, item.name)
        long_side = round(item.size * min(spec.size))
        sprite = load_sprite(path, long_side, rng.uniform(-lean, lean), rng.random() < 0.5, rng)
        placed.append(place(rng, sprite, scene, placed))
    slant = rng.uniform(0.4, 1.0) * rng.choice((-1, 1))
    ambient = scene.pixels.mean(axis=(0, 1))
    frame, visible = scene.pixels, np.zeros((height, width))
    for item_placed in sorted(placed, key=lambda one: one.foot):
        frame = frame * (1 - shadow(item_placed, scene, slant))[..., None]
        colour = np.zeros_like(frame)
        h, w = item_placed.sprite.alpha.shape
        box = slice(item_placed.y, item_placed.y + h), slice(item_placed.x, item_placed.x + w)
        colour[box] = 0.9 * item_placed.sprite.rgb + 0.1 * ambient
        alpha = item_placed.alpha
        frame = frame * (1 - alpha[..., None]) + colour * alpha[..., None]
        visible = alpha if item_placed is placed[0] else visible * (1 - alpha)
    return develop(frame, rng), Image.fromarray(np.where(visible > 0.5, 255, 0).astype(np.uint8))


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode at the best of `JPEG_QUALITIES` that stays under `MAX_BYTES` (the last one if none does)."""
    for quality in JPEG_QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() < MAX_BYTES:
            break
    return buffer.getvalue()


def encode_png(mask: Image.Image) -> bytes:
    """Encode a mask without loss."""
    buffer = io.BytesIO()
    mask.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> None:
    """Write `data` under its final name in one move, so that an interruption leaves no half file there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def compose_all(cutouts: Path, out: Path, seed: int, force: bool) -> None:
    """Compose every group into ``out/images`` and ``out/gts``.

    Raises
    ------
    ComposeError
        Pictures are already there and `force` is not set, or one cannot be composed.
    """
    if seed < 0:
        raise ComposeError(f"--seed {seed} is negative: pass 0 or more")
    targets = {
        spec: (
            out / "images" / group.name / f"{spec.name}.jpg",
            out / "gts" / group.name / f"{spec.name}.png",
        )
        for group in GROUPS
        for spec in group.photos
    }
    present = [path for pair in targets.values() for path in pair if path.exists()]
    if present and not force:
        raise ComposeError(f"{present[0]} exists ({len(present)} in all): pass --force, or another --out")
    for spec in targets:  # a missing cut-out is reported before anything is written
        for item in (spec.common, *spec.others):
            find_cutout(cutouts, item.name)
    for group in GROUPS:
        for spec in group.photos:
            rng = np.random.default_rng((seed, zlib.crc32(spec.name.encode())))
            image, mask = compose(spec, group.tilt, cutouts, rng)
            image_path, mask_path = targets[spec]
            write(image_path, encode_jpeg(image))
            write(mask_path, encode_png(mask))
            print(f"{image_path}  {image.width}x{image.height}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; return 0, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(description="Compose the example groups.")
    parser.add_argument("--cutouts", type=Path, required=True, metavar="DIR", help="folder of RGBA cut-outs")
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="where images/ and gts/ go")
    parser.add_argument("--seed", type=int, default=0, help="another seed places everything anew")
    parser.add_argument("--force", action="store_true", help="overwrite the pictures that are there")
    args = parser.parse_args(argv)
    try:
        compose_all(args.cutouts, args.out, args.seed, args.force)
    except (ComposeError, OSError) as error:
        print(f"compose.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
