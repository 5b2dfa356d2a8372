"""Cut-outs: a photo and its co-saliency map in, the object's opacity at full resolution out (paper, section 6).

>>> import gconet.runtime as gr
>>> detector = gr.load("build/gconet.gconet")
>>> maps = detector.detect(["a.jpg", "b.jpg"])
>>> alpha = gr.cutout.cutout(photo, maps[0])       # `gr.cutout` is this module, `cutout` its function
>>> if alpha is not None:                          # None: nothing is co-salient in this photo
...     picture = gr.cutout.rgba(photo, alpha)

Needs OpenCV: `pip install 'gconet-deploy[pictures]'`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.composition import compose, rgba
from gconet.runtime.cutout_border import soft_border
from gconet.runtime.grabcut import grab, reduced
from gconet.runtime.preprocess import FloatArray, Photo
from gconet.runtime.saliency_level import THRESHOLDS, Threshold, check_photo, check_saliency, saliency_level

__all__ = ["THRESHOLDS", "Alpha", "Threshold", "compose", "cutout", "rgba"]

Alpha = NDArray[np.uint8]


def cutout(photo: Photo, saliency: FloatArray, *, threshold: Threshold = "mean") -> Alpha | None:
    """Cut the co-salient object out of a photo.

    The map is split at a threshold that adapts to it, GrabCut (Rother et al. 2004) moves the border to where the
    photo's colours change, on a copy of a third of a megapixel, and a guided filter (He & Sun 2015) brings that to
    full resolution along the photo's edges. The same photo and map give the same answer.

    Parameters
    ----------
    photo : (H, W, 3) uint8 RGB.
    saliency : (H, W) float32 in [0, 1], the photo's map, as `Detector.detect` gives it.
    threshold : "mean" or "otsu", see `saliency_level`.

    Returns
    -------
    (H, W) uint8: 255 inside the object, 0 outside, between them along a soft border. None if nothing is co-salient: the
    map stays below 0.1 everywhere, or what passes its threshold is too small to be seen on the reduced copy.

    Raises
    ------
    PhotoError
        If the photo or the map is no such array.
    UsageError
        If they differ in size, or there is no such threshold.
    TargetError
        If OpenCV is not installed.
    """
    check_photo(photo)
    check_saliency(saliency, photo.shape)
    level = saliency_level(saliency, threshold)
    if level is None:
        return None
    small, small_map = reduced(photo, saliency)
    alpha = soft_border(photo, small, grab(small, small_map, level))
    return alpha if alpha.any() else None
