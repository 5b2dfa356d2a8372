"""Convolutions that stay in float when the rest goes to INT8, and why. `gconet sensitivity` measures the figures.

Figures are of the demo weights on held-out groups, all layers but the one named in INT8 or in float; "share" is of the
operations of all convolutions. With all in INT8 masks agree to 0.981, in the worst group to 0.942.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gconet.export.quantisation_plan import LayerPlan


@dataclass(frozen=True)
class FloatIsland:
    """Layers that stay in float.

    Attributes
    ----------
    pattern : of layers' names, as a shell would match them.
    reason : what INT8 does to them, and what float costs.
    signed : only where inputs that are never negative are stored with a sign all the same, in steps twice as wide.
    """

    pattern: str
    reason: str
    signed: bool = False


ISLANDS: tuple[FloatIsland, ...] = (
    FloatIsland(
        "gam.*",
        "they read C5, which is also what the affinity compares and the consensus is pooled from: alone in INT8 masks "
        "agree to 0.996 and 0.998, for 0.17 % of the operations",
    ),
    FloatIsland(
        "decoder.top.*",
        "reads the correlated features, whose range differs from group to group: alone in INT8 0.986, in the worst "
        "group 0.946, the most of all layers, for 0.02 % of the operations",
    ),
    FloatIsland(
        "decoder.levels.4.fuse.*",
        "the first sum of what is shared and what is seen: alone in INT8 0.994, in the worst group 0.968; calibrated "
        "on the example photos it loses a group (0.867, in float 0.973), for 0.19 % of the operations",
    ),
    FloatIsland(
        "encoder.conv5.*",
        "what photos are compared by: with a sign, on five example photos masks agree to 0.945, with these in half to "
        "0.968, for 4.6 % of the operations",
        signed=True,
    ),
    FloatIsland(
        "decoder.levels.1.side.4",
        "the logits, where the map is decided: mean |Δ| 1e-3 alone in INT8, for 0.01 % of the operations",
    ),
)


def int8_layers(layers: Iterable[str], signed: bool = False) -> list[str]:
    """Those of a network's convolutions that go to INT8; `signed` as for `FloatIsland`."""
    islands = [island for island in ISLANDS if signed or not island.signed]
    return [layer for layer in layers if not any(fnmatchcase(layer, island.pattern) for island in islands)]


def planned_int8(plans: Mapping[str, LayerPlan]) -> list[str]:
    """The same of planned ones, which tell whether they are signed."""
    return int8_layers(plans, signed=not any(plan.unsigned for plan in plans.values()))
