"""A start from statistics of training photos, for networks that must learn from little. Ours, not the paper's.

Two things cost an ordinary start most of a short run. Encoder features reach hundreds, and their product with the
consensus more: the first maps have logits of ±50, and learning rates that would serve the decoder diverge. And a random
GAM attends to backgrounds, so the decoder learns to do without a consensus before there is one worth having.

1. Every encoder layer is divided by the root mean square of its output, and the next multiplied by it. ReLU is
   homogeneous: the network is the same function but for the scale of its five outputs.
2. Query and key project onto the leading principal components of C5, each at unit variance, so that the affinity of two
   pixels tells how much more alike they are than any two. The consensus starts as the mean feature of all groups, which
   plain average pooling comes close to, and what sets this group's attended feature apart from the others'.
   With the attended feature alone the decoder learned more slowly than without a GAM (bench/results/NOTES.md).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gconet.train.config import TrainingConfig
from gconet.train.groups import LabelledGroup
from gconet.train.model import GCoNet, GroupAffinityModule
from gconet.train.pairs import PairDataset
from gconet.train.validation import autocast

PAIRS = 24  # of groups, the first of the run
COMPONENTS = 128  # of C5 that are compared; more are mostly noise: attention on unseen objects falls
RIDGE = 0.3  # of the mean variance, added to each: small components are not blown up
SHARPNESS = 0.7  # of query and key; with it about 40 of 196 pixels of a photo share its attention


@torch.no_grad()
def start_informed(model: GCoNet, groups: Sequence[LabelledGroup], config: TrainingConfig, steps: int) -> None:
    """Set `model` up, in place, from the first pairs of groups of a run."""
    model.eval()
    dataset = PairDataset(groups, dataclasses.replace(config, sizes=config.sizes[-1:]), steps)
    scales = _LayerScales(model)
    halves: list[Tensor] = []
    for index in range(min(PAIRS, len(dataset))):
        with autocast(config):
            features = model.encoder(dataset[index].images)[-1]
        halves += features.float().chunk(2)
    halves = [half / scales.last for half in halves]
    scales.apply()
    if isinstance(model.gam, GroupAffinityModule):
        set_up_gam(model.gam, halves)


@torch.no_grad()
def set_up_gam(gam: GroupAffinityModule, groups: Sequence[Tensor]) -> None:
    """Set the projections of `gam` from features (N, C, h, w) of groups, in place."""
    pixels = torch.cat([features.permute(0, 2, 3, 1).flatten(0, 2) for features in groups])  # M, C
    mean = pixels.mean(dim=0)
    covariance = torch.cov(pixels.T.double(), correction=0)  # in float32 it does not converge where channels are dead
    variances, components = (found.to(pixels.dtype) for found in torch.linalg.eigh(covariance))
    kept = min(COMPONENTS, len(mean) // 4 or 1)
    scale = (variances[-kept:] + RIDGE * variances.mean()).clamp(min=torch.finfo(pixels.dtype).tiny).rsqrt()
    whiten = components[:, -kept:] @ torch.diag(scale) @ components[:, -kept:].T  # C, C, symmetric

    # Sums over `kept` components grow with their root, and are divided by that of C.
    project = whiten * SHARPNESS * (len(mean) / kept) ** 0.25
    for layer in (gam.query, gam.key):
        _set(layer, project, -project @ mean)

    identity, none = torch.eye(len(mean)), torch.zeros_like(mean)
    _set(gam.output, identity, none)
    averages = torch.stack([features.mean(dim=(0, 2, 3)) for features in groups])  # G, C
    pooled = torch.stack([gam(features).consensus.flatten() for features in groups])
    weight = _size(averages) / _size(pooled)
    _set(gam.output, identity * weight, averages.mean(dim=0) - pooled.mean(dim=0) * weight)


class _LayerScales:
    """Root mean square of what each encoder layer puts out, after its ReLU, over all photos that pass."""

    def __init__(self, model: GCoNet) -> None:
        self._layers = [layer for layer in model.encoder.modules() if isinstance(layer, nn.Conv2d)]
        self._squares: dict[nn.Module, list[float]] = {layer: [] for layer in self._layers}
        self._hooks = [layer.register_forward_hook(self._note) for layer in self._layers]

    def _note(self, layer: nn.Module, _: object, output: Tensor) -> None:
        self._squares[layer].append(output.relu().float().square().mean().item())

    def _scales(self) -> Iterator[float]:
        for layer in self._layers:
            squares = self._squares[layer]
            # Three digits: sums by other numbers of threads differ in the last ones, and runs may share kept features.
            scale = float(f"{math.sqrt(sum(squares) / len(squares)):.3g}")
            yield scale or 1.0  # a layer that is dead stays as it is

    @property
    def last(self) -> float:
        """Of the last layer, C5."""
        return list(self._scales())[-1]

    def apply(self) -> None:
        """Give every layer unit size, in place, and stop watching."""
        before = 1.0
        for layer, scale in zip(self._layers, self._scales(), strict=True):
            layer.weight *= before / scale
            if layer.bias is not None:
                layer.bias /= scale
            before = scale
        for hook in self._hooks:
            hook.remove()


def _size(values: Tensor) -> Tensor:
    """Root mean square."""
    return values.square().mean().sqrt().clamp(min=torch.finfo(values.dtype).tiny)


def _set(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight[:, :, None, None])
    if layer.bias is not None:
        layer.bias.copy_(bias)
