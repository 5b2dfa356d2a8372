"""Run GCoNet bundles: photos in, co-saliency maps out. Needs numpy, Pillow and one engine; never torch or onnx.

>>> import gconet.runtime as gr
>>> detector = gr.load("build/gconet.gconet")
>>> maps = detector.detect(["a.jpg", "b.jpg"])
"""

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
