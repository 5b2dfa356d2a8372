"""What is tried of the readers of photos, one by one and as calibration groups."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from gconet.runtime.photos import find_groups, read_photo
from gconet.runtime.preprocess import Preprocessing

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


def photo_seeds(_folder: Path) -> list[bytes]:
    rgb = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    deep = rgb[..., 0].astype(np.uint16) * 257
    seeds = []
    for name in FORMATS:
        seeds += [_encoded(image, name) for image in (Image.fromarray(rgb), Image.fromarray(rgb[..., 0]))]
    seeds.append(_encoded(Image.fromarray(deep), "PNG"))
    seeds.append(_encoded(Image.fromarray(rgb).convert("P"), "PNG", transparency=0))
    seeds.append(_encoded(Image.fromarray(rgb).convert("CMYK"), "TIFF", compression="tiff_lzw"))
    seeds.append(_encoded(Image.fromarray(rgb), "TIFF", compression="tiff_adobe_deflate"))
    seeds.append(_encoded(Image.fromarray(rgb), "JPEG", progressive=True, exif=_turned()))
    return seeds


def _encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def check_photo(data: bytes, folder: Path) -> None:
    (folder / "photo.jpg").write_bytes(data)
    photo = read_photo(folder / "photo.jpg")
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise AssertionError(f"a photo of {photo.dtype} {photo.shape}")


def calibration_seeds(folder: Path) -> list[bytes]:
    return [b"apple.jpg\0" + seed for seed in photo_seeds(folder)]


def check_calibration(data: bytes, folder: Path) -> None:
    """The bytes are the name of a file in a folder of calibration photos, a zero, and its content."""
    from gconet.export.calibration import read_calibration

    name, _, content = data.partition(b"\0")
    path = folder / "groups" / os.fsdecode(name.replace(b"/", b"") or b"x")
    path.parent.mkdir(exist_ok=True)
    try:
        path.write_bytes(content)
    except OSError:
        return  # no name that a file can have
    try:
        (group,) = read_calibration(path.parent, Preprocessing(32))
        if group.shape != (1, 3, 32, 32) or not np.isfinite(group).all():
            raise AssertionError(f"calibration input {group.shape}")
        find_groups([path.parent])
    finally:
        path.unlink()
