"""The photo on which an engine is worst, as pictures to look at: the photo, both maps, and their difference."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gconet.bench.parity_groups import ComparedPhoto
from gconet.runtime.preprocess import FloatArray, to_bytes


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows."""

    caption: str
    png: bytes

    @property
    def data_uri(self) -> str:
        """The picture inside a URI, so that a page needs no other file."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


def draw_worst(photo: ComparedPhoto) -> Sequence[Picture]:
    """Four pictures (S, S): the photo, the eager map, the engine's map, and the difference stretched to full range.

    Values that are not finite are white in the difference, and black in the map.
    """
    finite = np.isfinite(photo.engine)
    difference = np.where(finite, np.abs(photo.engine - photo.reference), 0)
    largest = float(difference.max())
    stretched = np.where(finite, difference / (largest or 1), 1).astype(np.float32)
    bad = f"; not finite, white too: {np.count_nonzero(~finite)} pixels" * (not finite.all())
    size = photo.reference.shape[::-1]
    resized = Image.fromarray(photo.photo).resize((size[0], size[1]), Image.Resampling.BILINEAR)
    return [
        Picture("photo, as the network sees it", _png(resized)),
        Picture("eager PyTorch fp32", _map_png(photo.reference)),
        Picture("engine", _map_png(np.where(finite, photo.engine, 0).astype(np.float32))),
        Picture(f"|difference|, white is {largest:.2g}{bad}", _map_png(stretched)),
    ]


def _map_png(saliency: FloatArray) -> bytes:
    return _png(Image.fromarray(to_bytes(saliency.clip(0, 1))))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
