"""A profile as tables, and what it comes to in words."""

from __future__ import annotations

from collections.abc import Sequence

from gconet.bench.latency_tables import NONE, Table
from gconet.bench.layer_profile import LayerProfile, LayerRow

HEADER = ("layer", "kind", "kernel", "precision", "ms", "share", "GFLOP", "GFLOP/s", "of roofline")
TEXTS = 4  # columns that are words; the rest are numbers
KIND_NOTE = (
    "affinity: matrix products, reductions and softmax, the GAM without its convolutions; winograd: matrix products of "
    "convolutions in that form, with the operations that these do; reorder: the same values in another layout; "
    "convert: in another type; elementwise: what was fused into no convolution, sums above all."
)


def layer_table(profile: LayerProfile, top: int | None = None) -> Table:
    """The slowest layers, or all of them."""
    rows = sorted(profile.rows, key=lambda row: -row.ms)
    shown, rest = rows[:top], rows[len(rows[:top]) :]
    note = (
        "Medians of what the engine says of each layer, slowest first; the arrow in a precision leads to the output's "
        "type. A share of the roofline compares with the best rate of matrix products in the same precision, or with "
        "the speed of copies where moving takes longer than computing; caches are faster than that, so it may pass "
        "100 %."
    )
    if isinstance(profile.roofline, str):
        note += f" The roofline was not measured: {profile.roofline}."
    else:
        rates = ", ".join(f"{name} {rate.gflops:.0f} GFLOP/s" for name, rate in profile.roofline.rates.items())
        note += f" Limits in this run: {rates}; copies {profile.roofline.copy_gb_per_s:.1f} GB/s."
    cells = [_cells(row) for row in shown]
    if rest:
        ms, share = sum(row.ms for row in rest), sum(row.share for row in rest)
        cells.append((f"{len(rest)} more", *[NONE] * (TEXTS - 1), f"{ms:.2f}", f"{share:.1%}", *[NONE] * 3))
    return Table("Layers", HEADER, cells, note)


def kind_table(profile: LayerProfile) -> Table:
    """Sums by kind of layer."""
    total = profile.sum_ms
    cells = []
    for kind, ms in profile.kinds.items():
        rows = [row for row in profile.rows if row.layer.kind == kind]
        flop = sum(row.layer.flop for row in rows)
        rate = f"{flop / ms / 1e6:.0f}" if flop and ms else NONE
        cells.append((kind, str(len(rows)), f"{ms:.2f}", f"{ms / total:.1%}" if total else NONE, _gflop(flop), rate))
    return Table("Kinds", ("kind", "layers", "ms", "share", "GFLOP", "GFLOP/s"), cells, KIND_NOTE)


def total_lines(profile: LayerProfile) -> list[str]:
    """How the layers compare with the whole, and what timing them costs."""
    plain, profiled = profile.plain.percentile(50), profile.profiled.percentile(50)
    drift = profile.plain.drift
    cost = f"without profiling {plain:.1f} ms, with it {profiled:.1f} ms ({profile.overhead:+.1%})"
    lines = [f"{cost}: {profile.sum_ms:.1f} ms in layers, {profiled - profile.sum_ms:.1f} ms between them"]
    if not profile.plain.stationary or (drift is not None and abs(drift) > profile.request.warm_up.tolerance):
        moved = "" if drift is None else f", drift {drift:+.1%}"
        lines.append(f"the engine had not settled{moved}: something else uses the machine, or --warm-up is too short")
    return lines


def machine_line(profile: LayerProfile) -> str:
    """Processor, threads, rounds, libraries."""
    request, environment = profile.request, profile.environment
    libraries = ", ".join(f"{name} {version}" for name, version in environment["libraries"].items())
    threads = f"{request.threads} threads" if request.threads else "the engine's choice of threads"
    images = request.images.name if request.images else "the example photos"
    return (
        f"{environment['cpu']}, {environment['cores']} cores, {environment['os']}; {threads}; {request.rounds} rounds "
        f"on {images}; {libraries}"
    )


def terminal_table(table: Table) -> str:
    """Aligned columns: words left, numbers right."""
    rows = [table.header, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]
    words = TEXTS if table.header == HEADER else 1
    return "\n".join(
        " ".join(
            f"{cell:<{width}}" if column < words else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _cells(row: LayerRow) -> Sequence[str]:
    layer = row.layer
    return (
        layer.name,
        layer.kind,
        layer.kernel,
        layer.precision,
        f"{row.ms:.2f}",
        f"{row.share:.1%}",
        _gflop(layer.flop),
        NONE if row.gflops is None else f"{row.gflops:.0f}",
        NONE if row.share_of_roofline is None else f"{row.share_of_roofline:.0%}",
    )


def _gflop(flop: int) -> str:
    return f"{flop / 1e9:.3f}" if flop else NONE
