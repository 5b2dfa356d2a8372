"""Half precision by construction: weights and operations typed in the graph, so that an engine has nothing to decide.

The network is equalised on real photos first, then every layer goes to the narrow type but the islands below.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gconet.export.equalise import AFFINITY, DomainRange, equalise
from gconet.export.inference import InferenceNetwork
from gconet.runtime.preprocess import FloatArray

TYPES: Mapping[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Island:
    """A part of the network that stays in float32.

    Attributes
    ----------
    modules : of `InferenceNetwork`, by name.
    reason : why, and what it costs.
    needed : of the narrow type and the largest affinity of the calibration photos; whether it is an island there.
    """

    modules: tuple[str, ...]
    reason: str
    needed: Callable[[torch.dtype, float], bool] = lambda _dtype, _affinity: True


# A softmax turns an absolute error of its input into a relative one of its output.
LARGEST_AFFINITY_ERROR = 0.05

ISLANDS: tuple[Island, ...] = (
    Island(
        ("gam.pixel_bias", "gam.output"),
        "the vector path: the average over photos, the softmax, the pooling and the consensus are sums of N·H·W small "
        "terms that every map depends on; a few thousand numbers, so it costs nothing",
    ),
    Island(
        ("gam.query",),
        "the affinity, a softmax's input: rounded to n bits it is off by up to 2^-n of itself, and the attention by as "
        "much as that is in absolute terms; 0.2 % of the operations for a pair",
        lambda dtype, affinity: affinity * torch.finfo(dtype).eps / 2 > LARGEST_AFFINITY_ERROR,
    ),
    Island(
        ("decoder.levels.1.side.4",),
        "the logits, where the map is decided; 64 products a pixel",
    ),
)


class InFloat32(nn.Module):
    """A layer that computes in float32 whatever it is given."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (N, C, H, W) of any type; returns float32."""
        output: Tensor = self.layer(x.float())
        return output


def lower(network: InferenceNetwork, precision: str, groups: Sequence[FloatArray]) -> list[DomainRange]:
    """Equalise a float32 network on calibration groups and bring it to a narrow type, in place.

    Parameters
    ----------
    network : float32; changed, so one whose weights nothing else shares.
    precision : "fp16" or "bf16".
    groups : calibration inputs (N, 3, S, S), each one group; at least one.

    Returns
    -------
    What `equalise` found.
    """
    found = equalise(network, groups)
    narrow(network, precision, found)
    return found


def narrow(network: InferenceNetwork, precision: str, found: Sequence[DomainRange]) -> None:
    """Bring an equalised float32 network to "fp16" or "bf16" but for its islands, in place; `found` by `equalise`."""
    dtype = TYPES[precision]
    kept = {name: copy.deepcopy(network.get_submodule(name)) for name in islands(dtype, found)}
    network.to(dtype)
    for name, layer in kept.items():
        # The GAM converts between the types of its layers by itself.
        network.set_submodule(name, layer if name.startswith("gam.") else InFloat32(layer))


def islands(dtype: torch.dtype, found: Sequence[DomainRange]) -> list[str]:
    """Modules that stay in float32, as far as a network has them."""
    affinity = [entry.largest for entry in found if entry.layers == (AFFINITY,)]
    return [
        module
        for island in ISLANDS
        for module in island.modules
        if (affinity or not module.startswith("gam.")) and island.needed(dtype, max(affinity, default=0.0))
    ]
