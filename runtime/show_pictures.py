"""What sheets, galleries and the demo page are made of: small photos, heat maps, overlays, pictures inside a URI.

Nothing is said by colour alone: heat maps become lighter with every step (cividis), contours are white beside black.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gconet.runtime.extras import needing
from gconet.runtime.preprocess import FloatArray, Photo, resize_map, to_bytes

THRESHOLD = 0.5  # of a map, where its contour is drawn
DIMMED = 0.25  # of a photo's brightness, where its map is 0
COLOURS = "cividis"  # its lightness grows evenly, and it looks the same to whoever sees no red or green


def fitted(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    """Width and height of a picture that is brought to fill a box in one direction, its aspect ratio kept."""
    scale = min(box_width / width, box_height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(photo: Photo, longest: int) -> Photo:
    """A photo (H, W, 3) whose longer side is at most `longest` pixels."""
    height, width = photo.shape[:2]
    if max(height, width) <= longest:
        return photo
    size = fitted(width, height, longest, longest)
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def shrink_map(saliency: FloatArray, height: int, width: int) -> FloatArray:
    """A map (H, W) in [0, 1] at another size, antialiased; values stay in [0, 1]."""
    if height > saliency.shape[0] or width > saliency.shape[1]:
        return resize_map(saliency, height, width)
    image = Image.fromarray(np.ascontiguousarray(saliency)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image).clip(0, 1)


def relative_attention(attention: FloatArray) -> FloatArray:
    """A photo's attention (h, w), of sum 1, as shares in [0, 1] of its largest value; uniform is 1 throughout."""
    largest = float(attention.max())
    return (attention / largest if largest > 0 else attention).astype(np.float32)


def upsample_attention(attention: FloatArray, height: int, width: int) -> FloatArray:
    """Attention (h, w) at a photo's size, bilinear; each of its cells covers the same share of the photo.

    So it is not by aligned corners as maps are: the outer cells' centres lie half a cell inside.
    """
    image = Image.fromarray(np.ascontiguousarray(attention, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def heat(values: FloatArray) -> Photo:
    """Values (H, W) in [0, 1] as a picture (H, W, 3): dark blue is 0, light yellow is 1.

    Raises
    ------
    TargetError
        If matplotlib, which has the colours, is missing.
    """
    return _palette()[to_bytes(values.clip(0, 1))]


def grey(saliency: FloatArray) -> Photo:
    """A map (H, W) in [0, 1] as a picture (H, W, 3): white is 1."""
    return np.repeat(to_bytes(saliency.clip(0, 1))[..., None], 3, axis=2)


def overlay(photo: Photo, saliency: FloatArray) -> Photo:
    """A photo (H, W, 3) dimmed where its map (H, W) is low, with a white and black contour where it passes 0.5."""
    light = DIMMED + (1 - DIMMED) * saliency.clip(0, 1)[..., None]
    picture = np.rint(photo * light).astype(np.uint8)
    inside = saliency >= THRESHOLD
    picture[_grown(inside) & ~inside] = 0
    picture[inside & _grown(~inside)] = 255
    return picture


def data_uri(picture: Photo | NDArray[np.uint8], quality: int = 80) -> str:
    """A picture (H, W, 3) or (H, W) as a JPEG inside a URI, so that a page needs no other file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality, optimize=True)
    return encoded_uri(buffer.getvalue(), "image/jpeg")


def encoded_uri(content: bytes, mime: str) -> str:
    """A file's content inside a URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and the pixels beside it."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


@functools.cache
def _palette() -> NDArray[np.uint8]:
    with needing("pictures", "a picture of the attention"):
        import matplotlib
    colours: Callable[[NDArray[np.float64]], NDArray[np.float64]] = matplotlib.colormaps[COLOURS]
    return np.rint(colours(np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)
