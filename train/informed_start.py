"""A start from statistics of training photos, for networks that must learn from little. Ours, not the paper's.

Two things cost an ordinary start most of a short run. Encoder features reach hundreds, and their product with the
consensus more: the first maps have logits of ±50, and learning rates that would serve the decoder diverge. And a random
GAM attends to backgrounds, so the decoder learns to do without a consensus before there is one worth having.

1. Every encoder layer is divided by the root mean square of its output, and the next multiplied by it. ReLU is
   homogeneous: the network is the same function but for the scale of its five outputs.
2. Query and key whiten C5 by the statistics of background pixels, those that no group's object covers: what backgrounds
   have in common counts for little then, and objects stand out (for templates: Hariharan et al., Discriminative
   Decorrelation for Clustering and Classification, ECCV 2012). The consensus starts as the mean feature of all groups,
   which plain average pooling comes close to, and what sets this group's attended feature apart from the others'.
   With the attended feature alone the decoder learned more slowly than without a GAM (bench/results/NOTES.md).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gconet.train.config import TrainingConfig
from gconet.train.groups import LabelledGroup
from gconet.train.model import GCoNet, GroupAffinityModule
from gconet.train.pairs import PairDataset
from gconet.train.validation import autocast

PAIRS = 24  # of groups, the first of the run
BACKGROUND = 0.02  # a pixel of C5 of which an object covers less is background
RIDGE = 0.1  # of the mean variance, added to each: small components are not blown up
SPREAD = 0.2  # of a photo's pixels, in effect, share its attention
FLAT = 0.3  # factor of query and key at which no pixel's attention is so small that float32 loses it
SHARPEST, HALVINGS = 100.0, 20  # of the search for the factor with that spread


@torch.no_grad()
def start_informed(model: GCoNet, groups: Sequence[LabelledGroup], config: TrainingConfig, steps: int) -> None:
    """Set `model`, which lies on the run's device, up in place from the first pairs of groups of the run."""
    model.eval()
    dataset = PairDataset(groups, dataclasses.replace(config, sizes=config.sizes[-1:]), steps)
    scales = _LayerScales(model)
    halves: list[Tensor] = []
    objects: list[Tensor] = []
    for index in range(min(PAIRS, len(dataset))):
        batch = dataset[index]
        with autocast(config):
            features = model.encoder(batch.images.to(config.device))[-1]
        halves += features.float().chunk(2)
        covered = torch.maximum(batch.truth, batch.crossed_truth).to(config.device)
        objects += F.adaptive_avg_pool2d(covered, (features.shape[2], features.shape[3])).chunk(2)
    halves = [half / scales.last for half in halves]
    scales.apply()
    if isinstance(model.gam, GroupAffinityModule):
        set_up_gam(model.gam, halves, objects)


@torch.no_grad()
def set_up_gam(gam: GroupAffinityModule, groups: Sequence[Tensor], objects: Sequence[Tensor]) -> None:
    """Set the projections of `gam`, in place.

    Parameters
    ----------
    groups : features (N, C, h, w) of each.
    objects : (N, 1, h, w) in [0, 1] for each, how much of a pixel the objects of groups cover.
    """
    covered = _pixels(objects)[:, 0]
    background = _pixels(groups)[covered < covered.min() + BACKGROUND]  # M, C; what is covered least, if all is
    mean = background.mean(dim=0)
    covariance = torch.cov(background.T.double(), correction=0)  # in float32 it does not converge with dead channels
    variances, components = (found.to(mean.dtype) for found in torch.linalg.eigh(covariance))
    scale = (variances + RIDGE * variances.mean()).clamp(min=torch.finfo(mean.dtype).tiny).rsqrt()
    whiten = components @ torch.diag(scale) @ components.T  # C, C, symmetric

    def compare(factor: float) -> None:
        for layer in (gam.query, gam.key):
            _set(layer, factor * whiten, -factor * whiten @ mean)

    compare(FLAT)
    compare(FLAT * math.sqrt(_sharper([gam(features).attention.flatten(1) for features in groups])))

    identity, none = torch.eye(len(mean)).to(mean), torch.zeros_like(mean)
    _set(gam.output, identity, none)
    averages = torch.stack([features.mean(dim=(0, 2, 3)) for features in groups])  # G, C
    pooled = torch.stack([gam(features).consensus.flatten() for features in groups])
    weight = _size(averages) / _size(pooled)
    _set(gam.output, identity * weight, averages.mean(dim=0) - pooled.mean(dim=0) * weight)


def _sharper(attentions: Sequence[Tensor]) -> float:
    """The power to which attention (N, pixels) must be raised, and summed to 1 again, to have the wanted spread.

    Agreement grows with the square of the factor of query and key, so attention is raised to that power.
    """
    logarithms = [attention.clamp(min=torch.finfo(attention.dtype).tiny).log() for attention in attentions]
    low, high = 1 / SHARPEST, SHARPEST
    for _ in range(HALVINGS):
        power = math.sqrt(low * high)
        sharper = [(power * logarithm).log_softmax(dim=1) for logarithm in logarithms]
        entropies = [-(logarithm.exp() * logarithm).sum(dim=1) for logarithm in sharper]
        spread = torch.cat(entropies).exp().mean() / sharper[0].shape[1]
        low, high = (power, high) if spread > SPREAD else (low, power)
    return power


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


def _pixels(maps: Sequence[Tensor]) -> Tensor:
    """All pixels of groups (N, C, h, w), as (pixels, C)."""
    return torch.cat([values.permute(0, 2, 3, 1).flatten(0, 2) for values in maps])


def _size(values: Tensor) -> Tensor:
    """Root mean square."""
    return values.square().mean().sqrt().clamp(min=torch.finfo(values.dtype).tiny)


def _set(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight[:, :, None, None])
    if layer.bias is not None:
        layer.bias.copy_(bias)
