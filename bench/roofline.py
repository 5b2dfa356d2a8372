"""What the machine can do at best, and how near an engine comes to it.

The best rate of a precision is the highest of several public ways to multiply matrices, over several sizes: whichever
library is behind in one precision or on one CPU, another is not. For int8 that is OpenVINO's quantised MatMul and 3×3
convolution, whose kernels are the ones our int8 bundles use. Libraries that are not installed are passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gconet.bench.flops import LayerCost, total_flop
from gconet.bench.roofline_products import Copy, Product

REPEATS = 5
# A product this slow is emulated, as PyTorch's bf16 is on CPUs without. Once is enough; the next size takes minutes.
SLOW_S = 1.0
BYTES_PER_VALUE: Mapping[str, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Rate:
    """A precision's best rate: 10⁹ operations a second, and by what it was reached."""

    gflops: float
    by: str


@dataclass(frozen=True)
class Roofline:
    """The machine's limits.

    Attributes
    ----------
    rates : best rate by precision; a precision that nothing here computes in is missing.
    copy_gb_per_s : 10⁹ bytes read and written a second by the fastest copy of a large buffer.
    """

    rates: Mapping[str, Rate]
    copy_gb_per_s: float


@dataclass(frozen=True)
class RooflineShare:
    """How near an engine comes to the limits at one group size.

    Attributes
    ----------
    gflops : 10⁹ operations a second that it reached.
    share_of_peak : of the best rate of its precision.
    least_ms : the sum over layers of what takes longer, arithmetic at the best rate or memory at copy speed.
    share_of_roofline : `least_ms` over the measured median. Both may exceed 1: Winograd convolutions do fewer
        operations than are counted, and fused layers move less.
    """

    gflops: float
    share_of_peak: float
    least_ms: float
    share_of_roofline: float


def measure_roofline(products: Iterable[Product], copies: Iterable[Copy]) -> Roofline:
    """Measure a machine's limits, in seconds rather than minutes.

    Parameters
    ----------
    products : ways to multiply matrices, as `cpu_products` or `cuda_products` gives them.
    copies : ways to copy memory, at least one.
    """
    rates: dict[str, Rate] = {}
    for product in products:
        for label, flop, call in product.prepare():
            seconds = _shortest_s(call)
            rate = flop / seconds / 1e9
            if product.precision not in rates or rate > rates[product.precision].gflops:
                rates[product.precision] = Rate(rate, f"{product.by}, {label}")
            if seconds > SLOW_S:
                break
    return Roofline(rates, max(copied / _shortest_s(call) / 1e9 for copied, call in copies))


def share_of(layers: Sequence[LayerCost], median_ms: float, precision: str, roofline: Roofline) -> RooflineShare | None:
    """How near a median comes to the limits; None if the best rate of the precision is not known."""
    if precision not in roofline.rates:
        return None
    best = roofline.rates[precision].gflops
    gflops = total_flop(layers) / median_ms / 1e6
    least = least_ms(layers, best, roofline.copy_gb_per_s, BYTES_PER_VALUE[precision])
    return RooflineShare(gflops, gflops / best, least, least / median_ms)


def least_ms(layers: Sequence[LayerCost], gflops: float, gb_per_s: float, bytes_per_value: int) -> float:
    """Milliseconds of a machine that is always at one of its two limits, layer after layer."""
    return sum(max(layer.flop / gflops, layer.values * bytes_per_value / gb_per_s) / 1e6 for layer in layers)


def _shortest_s(call: Callable[[], object]) -> float:
    """The shortest of a few runs, noise only ever adds; the first, with what is done once, counts if it is slow."""
    first = _seconds(call)
    return first if first > SLOW_S else min(_seconds(call) for _ in range(REPEATS))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
