"""What the convolutions of the network read on real photos: how far it goes, and pixels drawn at random."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gconet.export.inference import InferenceNetwork
from gconet.runtime.preprocess import FloatArray

PIXELS = 8192  # drawn of each layer's input, all photos together: means are then known to 1 % of a deviation
SEED = 0


@dataclass(frozen=True)
class Inputs:
    """What a convolution of C input channels reads.

    Attributes
    ----------
    pixels : (P, C) float32, drawn at random, the same number from every photo.
    peaks : (photos,) the largest absolute value of each photo, over all its channels and pixels.
    signed : whether any value is negative.
    """

    pixels: Tensor
    peaks: Tensor
    signed: bool


@torch.no_grad()
def sample_inputs(
    network: InferenceNetwork, groups: Sequence[FloatArray], progress: Callable[[], object] = lambda: None
) -> dict[str, Inputs]:
    """Run a network on groups of inputs and look at what each convolution reads.

    Parameters
    ----------
    network : float32.
    groups : (N, 3, S, S), each one group, since what a layer reads depends on the whole group; at least one.
    progress : called after every group.

    Returns
    -------
    By name of the layer.
    """
    count = -(-PIXELS // sum(len(images) for images in groups))
    drawn: dict[str, list[Tensor]] = defaultdict(list)
    peaks: dict[str, list[Tensor]] = defaultdict(list)
    signed: dict[str, bool] = defaultdict(bool)
    generator = torch.Generator().manual_seed(SEED)

    def look(name: str, _: nn.Module, inputs: tuple[Tensor]) -> None:
        pixels = inputs[0].flatten(2)  # N, C, H·W
        peaks[name].append(pixels.abs().amax(dim=(1, 2)))
        signed[name] |= bool((pixels < 0).any())
        chosen = torch.randint(pixels.shape[2], (len(pixels), 1, count), generator=generator)
        drawn[name].append(pixels.gather(2, chosen.expand(-1, pixels.shape[1], -1)).transpose(1, 2).flatten(0, 1))

    hooks = [
        layer.register_forward_pre_hook(partial(look, name))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        for images in groups:
            network(torch.from_numpy(images))
            progress()
    finally:
        for handle in hooks:
            handle.remove()
    return {name: Inputs(torch.cat(parts), torch.cat(peaks[name]), signed[name]) for name, parts in drawn.items()}
