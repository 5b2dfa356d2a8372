"""The inference form of GCoNet: the same answer from less work. Every rewrite is exact in real arithmetic.

1. Only what the answer needs: no side heads but level 1, no GCM, no ACM.
2. θ and φ merge: θ(p)·φ(q) = (Mp + m)·q + (u·p + c) with M = W_φᵀW_θ, m = W_φᵀb_θ, u = W_θᵀb_φ. The keys are then the
   raw features. The last bracket is the same for every q, so it passes through max and mean and is added per pixel;
   its constant c drops out of the softmax. 1/√C goes into M, m and u.
3. The GAM's output convolution is linear, so it follows the pooling: C numbers instead of N·h·w·C.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gconet.export.operators import depthwise_correlation, group_affinity
from gconet.train.model import AveragePooling, GCoNet, GroupAffinityModule, GroupConsensus


class MergedProjection(NamedTuple):
    """M (C, C), m (C,) and u (C,) of the module's docstring, 1/√C included."""

    weight: Tensor
    bias: Tensor
    pixel_weight: Tensor


def merge_projections(gam: GroupAffinityModule) -> MergedProjection:
    """Merge the query and key projections, computed in float64 and returned in their own type."""
    query_weight, key_weight = (layer.weight.detach().flatten(1).double() for layer in (gam.query, gam.key))
    query_bias, key_bias = (_bias(layer).detach().double() for layer in (gam.query, gam.key))
    scale = 1 / math.sqrt(query_weight.shape[0])
    dtype = gam.query.weight.dtype
    return MergedProjection(
        (key_weight.T @ query_weight * scale).to(dtype),
        (key_weight.T @ query_bias * scale).to(dtype),
        (query_weight.T @ key_bias * scale).to(dtype),
    )


class FoldedAffinity(nn.Module):
    """The GAM after rewrites 2 and 3."""

    def __init__(self, gam: GroupAffinityModule) -> None:
        super().__init__()
        self.affinity: Callable[[Tensor, Tensor, Tensor], Tensor] = group_affinity  # or another form of the operator
        channels = gam.query.in_channels
        merged = merge_projections(gam)
        dtype = gam.query.weight.dtype
        self.query = nn.Conv2d(channels, channels, 1, dtype=dtype)
        self.pixel_bias = nn.Conv2d(channels, 1, 1, bias=False, dtype=dtype)
        self.output = nn.Linear(channels, channels, dtype=dtype)
        with torch.no_grad():
            self.query.weight.copy_(merged.weight[..., None, None])
            _bias(self.query).copy_(merged.bias)
            self.pixel_bias.weight.copy_(merged.pixel_weight[None, :, None, None])
            self.output.weight.copy_(gam.output.weight.flatten(1))
            self.output.bias.copy_(_bias(gam.output))

    def forward(self, features: Tensor) -> GroupConsensus:
        """Attention (N, 1, h, w) and consensus (1, C, 1, 1) of one group of features (N, C, h, w)."""
        dtype = self.query.weight.dtype  # of the affinity; what follows it is float32 in any arithmetic
        keys = features.to(dtype)
        exact = features.to(self.output.weight.dtype)
        attention = self.affinity(self.query(keys), keys, self.pixel_bias(exact))
        pooled = (exact * attention).mean(dim=(0, 2, 3))  # C
        # Not self.output(pooled): TensorRT for RTX has no float32 matrix product for Turing.
        consensus = (self.output.weight * pooled).sum(dim=1) + self.output.bias
        return GroupConsensus(attention, consensus[None, :, None, None])

    @torch.no_grad()
    def absorb(self, features: float, consensus: float) -> None:
        """Take features multiplied by one factor, and give the consensus multiplied by another, in place."""
        self.query.weight.div_(features**2)  # the keys are the features themselves
        _bias(self.query).div_(features)
        self.pixel_bias.weight.div_(features)
        self.output.weight.mul_(consensus / features)
        self.output.bias.mul_(consensus)


class FoldedAverage(nn.Module):
    """The baseline's consensus, with a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.0

    def forward(self, features: Tensor) -> GroupConsensus:
        """Attention and consensus as `AveragePooling` gives them."""
        attention, consensus = AveragePooling()(features.to(torch.promote_types(features.dtype, torch.float32)))
        return GroupConsensus(attention, consensus if self.factor == 1 else consensus * self.factor)

    def absorb(self, features: float, consensus: float) -> None:
        """As for `FoldedAffinity`."""
        self.factor *= consensus / features


class InferenceNetwork(nn.Module):
    """What is exported: normalised images (N, 3, H, W) float32 to maps (N, 1, H, W) float32 in [0, 1].

    Unchanged weights are shared with the given network; use a copy of that before they are changed in place.
    Arithmetic is of each layer's weights' type, input and output stay float32.
    """

    def __init__(self, model: GCoNet) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.gam = FoldedAffinity(model.gam) if isinstance(model.gam, GroupAffinityModule) else FoldedAverage()
        self.decoder = model.decoder
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Co-saliency maps of one group."""
        features = self.encoder(images.to(next(self.parameters()).dtype))
        consensus = self.gam(features[-1]).consensus.to(features[-1].dtype)
        logits = self.decoder(features, depthwise_correlation(features[-1], consensus))
        return logits.float().sigmoid()


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise ValueError("a projection without bias is not GCoNet's")
    return layer.bias
