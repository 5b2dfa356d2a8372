"""Convolutions that stay in float when the rest goes to INT8, and why. `gconet sensitivity` measures the figures.

Figures are of the first demo weights on held-out groups; "share" is of the operations of all convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class FloatIsland:
    """Layers that stay in float.

    Attributes
    ----------
    pattern : of layers' names, as a shell would match them.
    reason : what INT8 does to them, and what float costs.
    """

    pattern: str
    reason: str


ISLANDS: tuple[FloatIsland, ...] = (
    FloatIsland(
        "gam.*",
        "they read C5, which is also what the affinity compares and the consensus is pooled from: rounded for either, "
        "the mask IoU falls to 0.981, where most others keep 0.998; both in float raise it from 0.975 to 0.989, at "
        "0.17 % of the operations",
    ),
    FloatIsland(
        "decoder.top.*",
        "reads the correlated features, whose range differs from group to group: mean |Δ| 4e-4 and 2e-4 alone in INT8, "
        "for 0.02 % of the operations",
    ),
    FloatIsland(
        "decoder.levels.1.side.4",
        "the logits, where the map is decided: mean |Δ| 6e-4 alone in INT8, for 0.01 % of the operations",
    ),
)


def int8_layers(layers: Iterable[str]) -> list[str]:
    """Those of a network's convolutions that go to INT8."""
    return [layer for layer in layers if not any(fnmatchcase(layer, island.pattern) for island in ISLANDS)]
