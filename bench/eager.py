"""Eager PyTorch as a peer in benchmarks: the bundle's network, as trained, without any rewrite."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import FloatArray
from gconet.train.checkpoint import random_checkpoint
from gconet.train.model import Architecture


def eager_network(manifest: Manifest, threads: int | None) -> Callable[[FloatArray], object]:
    """The network of a bundle's architecture, ready to call on network input (N, 3, S, S).

    Its weights are random: dense arithmetic takes the same time with any weights.
    """
    if threads:
        torch.set_num_threads(threads)
    model = random_checkpoint(architecture=Architecture.from_dict(manifest.architecture)).network()

    def infer(images: FloatArray) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(images))

    return infer
