"""OpenCV, which only pictures made from maps need: imported when first used, with the command that installs it."""

from __future__ import annotations

from types import ModuleType

from gconet.runtime.extras import needing


def opencv() -> ModuleType:
    """The module `cv2`.

    Raises
    ------
    TargetError
        If OpenCV is not installed, or cannot be loaded.
    """
    with needing("pictures", "a cut-out or thumbnail"):
        import cv2
    return cv2
