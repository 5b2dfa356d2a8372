"""Where the time of one group goes, from files to maps of the photos' sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gconet.bench.photo_groups import extend_photos
from gconet.bench.timing import time_interleaved
from gconet.runtime.photos import read_photo
from gconet.runtime.preprocess import Preprocessing, resize_map, to_bytes, to_input


@dataclass(frozen=True)
class HostPhases:
    """Medians in milliseconds of what is the same for every engine: reading files, resizing photos, resizing maps."""

    decode_ms: float
    pre_ms: float
    post_ms: float


@dataclass(frozen=True)
class Phases:
    """Medians in milliseconds of one engine at one group size.

    Attributes
    ----------
    decode_ms : photo files to RGB.
    pre_ms : RGB to network input.
    h2d_ms, d2h_ms : input to the GPU, maps from it; None where the engine reads and writes the host's memory.
    compute_ms : network input to maps.
    post_ms : maps to the photos' sizes, 8 bits; writing files is not included.
    """

    decode_ms: float
    pre_ms: float
    h2d_ms: float | None
    compute_ms: float
    d2h_ms: float | None
    post_ms: float

    @property
    def total_ms(self) -> float:
        """All of them, one after the other."""
        return sum(value or 0.0 for value in vars(self).values())


def time_host_phases(files: Sequence[Path], group: int, preprocessing: Preprocessing, rounds: int) -> HostPhases:
    """Time reading, pre- and post-processing of a group; files come again where there are fewer than `group`."""
    paths = [files[index % len(files)] for index in range(group)]
    photos = extend_photos([read_photo(path) for path in files[:group]], group)
    maps = np.random.default_rng(0).random((group, preprocessing.size, preprocessing.size), np.float32)
    calls = {
        "decode": lambda: [read_photo(path) for path in paths],
        "pre": lambda: to_input(photos, preprocessing),
        "post": lambda: [to_bytes(resize_map(m, *p.shape[:2])) for m, p in zip(maps, photos, strict=True)],
    }
    timings = time_interleaved(calls, rounds, lambda: None)
    return HostPhases(*(timings[name].percentile(50) for name in ("decode", "pre", "post")))
