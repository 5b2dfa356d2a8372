"""Running a typed network on a CPU as a GPU would, only faster than the CPU's own narrow convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gconet.export.inference import InferenceNetwork


class WideAccumulation(nn.Module):
    """A convolution of narrow operands whose products are summed in float32 and rounded once, as tensor cores do.

    PyTorch's CPU kernels sum in float32 too, but without half-precision instructions they take forty times longer.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.dtype = layer.weight.dtype
        self.layer = layer.float()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (N, C, H, W) of its type; returns that type, with infinities where it overflows."""
        output: Tensor = self.layer(x.float())
        return output.to(self.dtype)


def accumulate_widely(network: InferenceNetwork) -> None:
    """Replace the narrow convolutions of the encoder and the decoder, in place; all else stays in its type."""
    narrow = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.weight.dtype != torch.float32 and not name.startswith("gam.")
    ]
    for name, layer in narrow:
        network.set_submodule(name, WideAccumulation(layer))
