"""The detector: photos of a group in, one co-saliency map per photo out."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.errors import PhotoError, UsageError
from gconet.runtime.photos import read_photo
from gconet.runtime.preprocess import FloatArray, Photo, resize_map, to_input
from gconet.runtime.session import Session, open_session


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
            `max_group`; other engines take more, but were verified up to there.

        Returns
        -------
        One (H, W) float32 map in [0, 1] per photo, at the photo's own size; 1 is the shared object.

        Raises
        ------
        PhotoError
            If a photo cannot be read or is no such array.
        UsageError
            If there are no photos, one path in place of a list, or more photos than a plan was built for.
        """
        if isinstance(photos, str | os.PathLike):
            raise UsageError(f"a group is a list of photos, got the one path {photos}")
        if len(photos) == 0:
            raise UsageError("a group needs at least one photo")
        limit = self.session.max_group
        if limit is not None and len(photos) > limit:
            raise UsageError(
                f"a group of {len(photos)} photos: {self.bundle.folder} takes up to {limit}; "
                f"for more, build with `--max-group {len(photos)}`"
            )
        arrays = [_as_array(photo, index) for index, photo in enumerate(photos)]
        maps = self.session.infer({"images": to_input(arrays, self.bundle.manifest.preprocessing)})["maps"]
        return [resize_map(saliency[0], *array.shape[:2]) for saliency, array in zip(maps, arrays, strict=True)]


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
