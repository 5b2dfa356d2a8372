"""Run GCoNet bundles: photos in, co-saliency maps out. Needs numpy, Pillow and one engine; never torch or onnx.

>>> import gconet.runtime as gr
>>> detector = gr.load("build/gconet.gconet")
>>> maps = detector.detect(["a.jpg", "b.jpg"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gconet.runtime import cutout as cutout
    from gconet.runtime import thumbnail as thumbnail
    from gconet.runtime.bundle import Bundle, open_bundle
    from gconet.runtime.consensus_builder import ConsensusBuilder
    from gconet.runtime.consensus_file import Consensus, load_consensus, save_consensus
    from gconet.runtime.detector import Detector, load
    from gconet.runtime.errors import (
        BundleError,
        CheckpointError,
        ConsensusError,
        GconetError,
        PhotoError,
        TargetError,
        UsageError,
    )
    from gconet.runtime.host_arrays import HostBuffer
    from gconet.runtime.manifest import Manifest
    from gconet.runtime.preprocess import Preprocessing

__all__ = [
    "Bundle",
    "BundleError",
    "CheckpointError",
    "Consensus",
    "ConsensusBuilder",
    "ConsensusError",
    "Detector",
    "GconetError",
    "HostBuffer",
    "Manifest",
    "PhotoError",
    "Preprocessing",
    "TargetError",
    "UsageError",
    "load",
    "load_consensus",
    "open_bundle",
    "save_consensus",
]

# Name -> module. Each is imported when its name is first asked for: numpy alone takes longer than a program that only
# wants to say its version, or what is wrong with its arguments, should.
_HOMES = {
    "Bundle": "gconet.runtime.bundle",
    "BundleError": "gconet.runtime.errors",
    "CheckpointError": "gconet.runtime.errors",
    "Consensus": "gconet.runtime.consensus_file",
    "ConsensusBuilder": "gconet.runtime.consensus_builder",
    "ConsensusError": "gconet.runtime.errors",
    "Detector": "gconet.runtime.detector",
    "GconetError": "gconet.runtime.errors",
    "HostBuffer": "gconet.runtime.host_arrays",
    "Manifest": "gconet.runtime.manifest",
    "PhotoError": "gconet.runtime.errors",
    "Preprocessing": "gconet.runtime.preprocess",
    "TargetError": "gconet.runtime.errors",
    "UsageError": "gconet.runtime.errors",
    "load": "gconet.runtime.detector",
    "load_consensus": "gconet.runtime.consensus_file",
    "open_bundle": "gconet.runtime.bundle",
    "save_consensus": "gconet.runtime.consensus_file",
}

# `gr.cutout` and `gr.thumbnail` are modules, each with a function of its name: importing `gconet.runtime.cutout` by its
# path binds the name `cutout` here to the module, so that it can be nothing else at any time.
_MODULES = ("cutout", "thumbnail")


def __getattr__(name: str) -> object:
    """Import what is asked for."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
