"""The detector: photos of a group in, one co-saliency map per photo out."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.errors import PhotoError, UsageError
from gconet.runtime.photos import read_photo
from gconet.runtime.preprocess import SIZE_STEP, FloatArray, Photo, resize_map, to_input
from gconet.runtime.session import Session, open_session

# Of the affinity between all C5 pixels of a group, in float32: half of a common machine's 16 GB, and 228 photos at 224
# pixels. An engine that runs out of memory may take the process with it, so larger ones are not tried.
MAX_AFFINITY_BYTES = 8 * 10**9


class Detector:
    """A loaded bundle. Make one with `load`; calls from several threads are safe."""

    def __init__(self, bundle: Bundle, session: Session) -> None:
        self.bundle = bundle
        self.session = session

    def detect(self, photos: Sequence[str | os.PathLike[str] | Photo]) -> list[FloatArray]:
        """Find the object that a group of photos shares.

        Parameters
        ----------
        photos : paths, or (H, W, 3) uint8 RGB arrays, each of its own size; at least one. Plans take up to the bundle's
            `max_group`; other engines take more, as far as memory goes (`check_count`), but were verified up to there.

        Returns
        -------
        One (H, W) float32 map in [0, 1] per photo, at the photo's own size; 1 is the shared object.

        Raises
        ------
        PhotoError
            If a photo cannot be read or is no such array.
        UsageError
            If there are no photos, one path in place of a list, or more photos than the engine takes.
        TargetError
            If the engine fails, as when memory runs out.
        """
        if isinstance(photos, str | os.PathLike):
            raise UsageError(f"a group is a list of photos, got the one path {photos}")
        self.check_count(len(photos))
        arrays = [_as_array(photo, index) for index, photo in enumerate(photos)]
        maps = self.session.infer({"images": to_input(arrays, self.bundle.manifest.preprocessing)})["maps"]
        return [resize_map(saliency[0], *array.shape[:2]) for saliency, array in zip(maps, arrays, strict=True)]

    def check_count(self, count: int) -> None:
        """Raise UsageError if a group of `count` photos is empty or more than the plan, or memory, has room for."""
        if count < 1:
            raise UsageError("a group needs at least one photo")
        limit = self.session.max_group
        if limit is not None:
            if count > limit:
                raise UsageError(
                    f"a group of {count} photos: {self.bundle.folder} takes up to {limit}; "
                    f"for more, build with `--max-group {count}`"
                )
            return
        pixels = (self.bundle.manifest.preprocessing.size // SIZE_STEP) ** 2  # of one photo's C5
        needed = (count * pixels) ** 2 * np.dtype(np.float32).itemsize
        if needed > MAX_AFFINITY_BYTES:
            fitting = math.isqrt(MAX_AFFINITY_BYTES // np.dtype(np.float32).itemsize) // pixels
            raise UsageError(
                f"a group of {count} photos needs about {needed / 1e9:.0f} GB of memory for its affinity alone: "
                f"split it into groups of at most {fitting}"
            )


def load(bundle: str | os.PathLike[str], device: str = "auto", threads: int | None = None) -> Detector:
    """Open a bundle and load its engine.

    Parameters
    ----------
    bundle : folder made by `gconet build`.
    device : "auto" or "cpu".
    threads : for CPU engines; None leaves the choice to the engine.

    Raises
    ------
    BundleError
        If the bundle is missing, altered or damaged.
    TargetError
        If this machine cannot run its engine.
    UsageError
        If `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    opened = open_bundle(bundle)
    return Detector(opened, open_session(opened, device, threads))


def _as_array(photo: str | os.PathLike[str] | Photo, index: int) -> Photo:
    if not isinstance(photo, np.ndarray):
        return read_photo(photo)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise PhotoError(f"photo {index} is {photo.dtype} {photo.shape}: an (H, W, 3) uint8 RGB array is wanted")
    return photo
