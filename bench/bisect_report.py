"""What `gconet parity --bisect` and `--scan` say."""

from __future__ import annotations

from gconet.bench.bisect_layers import Bisection
from gconet.bench.parity_statistics import in_decibels

LARGEST_HALF = 65504.0  # the largest number of IEEE half precision


def bisection_text(bisection: Bisection) -> str:
    """A table for people, and in its last line the verdict."""
    width = max(len(row.layer) for row in bisection.rows)
    lines = [f"{'layer':<{width}} {'error':>8} {'SQNR dB':>8} {'max |x|':>8} {'fp32':>8}"]
    lines += [
        f"{row.layer:<{width}} {row.relative_error:>8.1e} {in_decibels(row.sqnr_db):>8} {row.largest_engine:>8.2g} "
        f"{row.largest_reference:>8.2g}{'  jumps' if row.jumps else ''}"
        for row in bisection.rows
    ]
    return "\n".join([*lines, jump_verdict(bisection)])


def jump_verdict(bisection: Bisection) -> str:
    """The first layer whose error jumps, with both values; or that there is none."""
    row = bisection.first_jump
    if row is None:
        worst = max(bisection.rows, key=lambda row: row.relative_error)
        return f"no layer's error jumps; the largest is {worst.relative_error:.1e}, at {worst.layer}"
    return (
        f"first jump: {row.layer}, from {row.inherited:.1e} to {row.relative_error:.1e}; "
        f"where it is worst, fp32 has {row.worst_reference:.4g} and the engine {row.worst_engine:.4g}"
    )


def scan_verdict(bisection: Bisection) -> str:
    """The first layer that is not finite, with its largest |activation|; or the largest of all."""
    row = bisection.first_not_finite
    if row is not None:
        return (
            f"first NaN or infinity: {row.layer}, {row.not_finite} values; its largest finite |activation| is "
            f"{row.largest_engine:.4g}, in fp32 {row.largest_reference:.4g}"
        )
    row = bisection.largest
    share = f", {row.largest_engine / LARGEST_HALF:.1%} of half precision's range" * (bisection.precision == "fp16")
    return (
        f"no NaN, no infinity in {len(bisection.rows)} layers; the largest |activation| is "
        f"{row.largest_engine:.4g}, at {row.layer}{share}"
    )
