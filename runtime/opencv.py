"""OpenCV, which only pictures made from maps need: imported when first used, with the command that installs it."""

from __future__ import annotations

from types import ModuleType

from gconet.runtime.errors import TargetError


def opencv() -> ModuleType:
    """The module `cv2`.

    Raises
    ------
    TargetError
        If OpenCV is not installed, or cannot be loaded.
    """
    try:
        import cv2
    except ImportError as error:
        raise TargetError(
            f"cut-outs and thumbnails need OpenCV ({error}): pip install 'gconet-deploy[pictures]'"
        ) from error
    return cv2
