"""The INT8 network in PyTorch, computed as its Q/DQ graph asks: what can be known of an INT8 plan without its GPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from gconet.export.inference import InferenceNetwork
from gconet.export.precision import InFloat32
from gconet.export.quantisation_islands import planned_int8
from gconet.export.quantisation_plan import SIGNED_LEVELS, UNSIGNED_LEVELS, LayerPlan


class RoundedConvolution(nn.Module):
    """A convolution whose input and weights are 8-bit numbers times their steps.

    Integers are summed exactly on a GPU and scaled in float32, so the sum is float32 here, and rounded once, to the
    type that the layer had.
    """

    def __init__(self, layer: nn.Conv2d, plan: LayerPlan) -> None:
        super().__init__()
        self.plan, self.dtype = plan, layer.weight.dtype
        self.layer = layer.float()
        steps = plan.weight_steps[:, None, None, None]
        with torch.no_grad():
            layer.weight.copy_((layer.weight / steps).round().clamp(-SIGNED_LEVELS, SIGNED_LEVELS) * steps)
            shifted = plan.bias_shift if layer.bias is None else layer.bias + plan.bias_shift
            layer.bias = nn.Parameter(shifted.to(self.dtype).float())

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (N, C, H, W) of its type; returns that type."""
        lowest, highest = (0, UNSIGNED_LEVELS) if self.plan.unsigned else (-SIGNED_LEVELS - 1, SIGNED_LEVELS)
        step = self.plan.input_step
        levels = (x.to(self.dtype).float() / step).round().clamp(lowest, highest)
        output: Tensor = self.layer(levels * step)
        return output.to(self.dtype)


def round_convolutions(
    network: InferenceNetwork, plans: Mapping[str, LayerPlan], layers: Collection[str] | None = None
) -> None:
    """Replace convolutions of a calibrated network by rounded ones, in place; None for all but the islands.

    Parameters
    ----------
    network, plans : of `calibrate`.
    layers : names of `plans`.
    """
    for name in planned_int8(plans) if layers is None else layers:
        layer = network.get_submodule(name)
        if isinstance(layer, InFloat32):
            layer = layer.layer
        if not isinstance(layer, nn.Conv2d):
            raise TypeError(f"{name} is no convolution but {type(layer).__name__}")
        network.set_submodule(name, RoundedConvolution(layer, plans[name]))
