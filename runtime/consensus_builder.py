"""A consensus to which photos are added one by one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gconet.runtime.agreement import Agreement
from gconet.runtime.encoded_group import EncodedGroup
from gconet.runtime.errors import UsageError
from gconet.runtime.large_groups import input_blocks
from gconet.runtime.photos import as_array
from gconet.runtime.preprocess import SIZE_STEP, FloatArray, Photo

if TYPE_CHECKING:
    from gconet.runtime.detector import Detector


class ConsensusBuilder:
    """Gathers a group over time. At every moment `consensus` is that of the photos so far, as if asked for at once.

    A photo is encoded once and compared with those before it: O(N). To take photos out, build a new one from the rest:
    what a photo did to the others' best matches cannot be taken back.

    Parameters
    ----------
    detector : of a bundle for target openvino or onnxruntime.

    Raises
    ------
    BundleError
        If the bundle lacks the graphs for it.
    """

    def __init__(self, detector: Detector) -> None:
        self._preprocessing = detector.bundle.manifest.preprocessing
        self._group = EncodedGroup(detector.session, detector.bundle.manifest, drawable=False)
        self._agreement = Agreement(self._group)

    def __len__(self) -> int:
        """Photos so far."""
        return len(self._group)

    def add(self, *photos: str | os.PathLike[str] | Photo) -> None:
        """Add photos: paths, or (H, W, 3) uint8 RGB arrays. Many at once are faster than one by one.

        Raises
        ------
        PhotoError
            If a photo cannot be read or is no such array. After this and other errors, those of its block and after it
            are not added.
        UsageError
            If there is no room on the disk for the features.
        TargetError
            If the engine fails.
        """
        arrays = (as_array(photo, index) for index, photo in enumerate(photos))
        for images in input_blocks(arrays, len(photos), self._preprocessing):
            before = len(self._group)
            try:
                self._group.append(images)
                self._agreement.compare_new()
            except BaseException:  # an interruption too, after which a notebook goes on
                self._group.cut(before)
                raise

    def consensus(self) -> FloatArray:
        """(C,) float32, 512 numbers of the paper's network; raises UsageError while there are no photos."""
        self._check()
        return self._agreement.consensus()

    def attention(self) -> FloatArray:
        """(N, h, w) float32, 14×14 at 224 pixels, each photo's summing to 1; raises UsageError without photos."""
        self._check()
        side = self._preprocessing.size // SIZE_STEP
        return self._agreement.attention().reshape(len(self), side, side)

    def _check(self) -> None:
        if not len(self):
            raise UsageError("a consensus needs at least one photo: add some first")
