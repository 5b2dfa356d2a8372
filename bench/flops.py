"""What a group costs, counted from the architecture: arithmetic and memory traffic of each layer, without torch.

Convolutions and matrix products are counted, two operations for each multiplication and addition; ReLU, pooling,
resizing and softmax, below 1 % of the arithmetic, are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gconet.runtime.preprocess import SIZE_STEP

Form = Literal["reference", "inference"]  # the network as trained; what our export makes of it

CONVOLUTIONS_PER_BLOCK = (2, 2, 3, 3, 3)  # VGG-16, as in train/model.py, which needs torch


@dataclass(frozen=True)
class LayerCost:
    """One convolution or matrix product over a whole group.

    Attributes
    ----------
    name : after the network's modules.
    flop : floating-point operations.
    values : numbers it reads (input, weights) and writes (output), each once.
    """

    name: str
    flop: int
    values: int


def count_layers(architecture: Mapping[str, Any], size: int, group: int, form: Form) -> list[LayerCost]:
    """The layers that the maps of one group pass through.

    Parameters
    ----------
    architecture : as a manifest has it.
    size : side of the square input.
    form : "inference" merges the GAM's projections and moves its output projection behind the pooling.
    """
    widths = [int(width) for width in architecture["encoder_channels"]]
    features, channels = widths[-1], int(architecture["decoder_channels"])
    smallest = size // SIZE_STEP
    layers = []
    below = 3
    for block, (width, count) in enumerate(zip(widths, CONVOLUTIONS_PER_BLOCK, strict=True), start=1):
        for index in range(1, count + 1):
            layers.append(_convolution(f"conv{block}_{index}", below, width, 3, size >> (block - 1), group))
            below = width
    if architecture.get("gam", True):
        layers += _affinity(features, smallest, group, form)
    layers += _two("toplayer", features, channels, 1, smallest, group)
    for level in (4, 3, 2, 1):
        side = size >> (level - 1)
        layers += _two(f"latlayer{level}", widths[level - 1], channels, 3, side, group)
        layers += _two(f"enlayer{level}", channels, channels, 3, side, group)
    layers += _two("dslayer1", channels, channels, 3, size, group)
    layers.append(_convolution("dslayer1 map", channels, 1, 1, size, group))
    return layers


def total_flop(layers: Sequence[LayerCost]) -> int:
    """Operations of all layers together."""
    return sum(layer.flop for layer in layers)


def _affinity(channels: int, side: int, group: int, form: Form) -> list[LayerCost]:
    pixels = group * side * side
    product = LayerCost("affinity", 2 * channels * pixels**2, 2 * channels * pixels + pixels**2)
    if form == "reference":
        names = ("gam query", "gam key", "gam output")
        return [*(_convolution(name, channels, channels, 1, side, group) for name in names), product]
    return [
        _convolution("gam query", channels, channels, 1, side, group),
        _convolution("gam pixel bias", channels, 1, 1, side, group),
        product,
        LayerCost("gam output", 2 * channels**2, channels**2 + 2 * channels),
    ]


def _two(name: str, below: int, width: int, kernel: int, side: int, group: int) -> list[LayerCost]:
    return [
        _convolution(f"{name} first", below, width, kernel, side, group),
        _convolution(f"{name} second", width, width, kernel, side, group),
    ]


def _convolution(name: str, below: int, width: int, kernel: int, side: int, group: int) -> LayerCost:
    pixels, weights = group * side * side, below * width * kernel**2
    return LayerCost(name, 2 * weights * pixels, (below + width) * pixels + weights)
