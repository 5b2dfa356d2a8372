"""What an engine might need on the paper's card, projected from how near it comes to its own GPU's limits.

A projection, not a measurement: it takes for granted that an engine uses the same share of either card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gconet.bench.flops import LayerCost
from gconet.bench.roofline import BYTES_PER_VALUE, RooflineShare, least_ms


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet: 10¹² operations a second, 10⁹ bytes a second."""

    name: str
    tflops: float
    gb_per_s: float


# The GTX 1080 Ti's figures in fp32. For fp16 and int8 engines the class is a card of this rate in their precision: the
# 1080 Ti itself is 64 times slower in fp16.
PAPERS_CLASS = Card("1080Ti-class", 11.3, 484.0)


def project_ms(layers: Sequence[LayerCost], precision: str, share: RooflineShare, card: Card = PAPERS_CLASS) -> float:
    """Milliseconds that `layers` would take on a card, at the share of its limits that was measured elsewhere."""
    return least_ms(layers, card.tflops * 1000, card.gb_per_s, BYTES_PER_VALUE[precision]) / share.share_of_roofline
