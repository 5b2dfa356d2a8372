"""The reference every engine is compared with: the eager FP32 network, on photos."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from gconet.runtime.bundle import describe_file
from gconet.runtime.errors import CheckpointError
from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import FloatArray
from gconet.train.checkpoint import SHIPPED, load_checkpoint
from gconet.train.model import GCoNet

BLOCK = 8  # photos encoded or decoded at a time: bounds memory, changes no photo's arithmetic


def reference_network(manifest: Manifest, checkpoint: str | os.PathLike[str] | None) -> GCoNet:
    """The network a bundle was built from.

    Parameters
    ----------
    checkpoint : the file it was built from; not needed for the weights that ship with the project.

    Raises
    ------
    CheckpointError
        If the file is missing or is another one than the bundle's.
    """
    path = SHIPPED if checkpoint is None else Path(checkpoint)
    model = load_checkpoint(path)
    if describe_file(path).sha256 != manifest.checkpoint.get("sha256"):
        if checkpoint is None:
            provenance = manifest.checkpoint.get("provenance", "unknown")
            raise CheckpointError(
                f"the bundle was built from other weights ({provenance}): name them with --checkpoint"
            )
        raise CheckpointError(f"{path} is not the checkpoint this bundle was built from (SHA-256 differs)")
    return model


def eager_maps(model: GCoNet, images: FloatArray) -> FloatArray:
    """Maps (N, 1, S, S) of one group of network inputs (N, 3, S, S), in blocks of photos so that N may be large."""
    with torch.inference_mode():
        blocks = [model.encoder(block) for block in torch.split(torch.from_numpy(images), BLOCK)]
        consensus = model.gam(torch.cat([features[-1] for features in blocks])).consensus
        maps: FloatArray = torch.cat([model.segment(features, consensus) for features in blocks]).numpy()
    return maps
