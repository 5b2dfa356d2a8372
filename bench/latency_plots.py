"""Plots of a run as SVG to be put into a page; bundles are filled, peers grey, and every value is written out too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from gconet.bench.latency_rows import LatencyRow

WIDTH, LEFT, RIGHT = 960, 340, 180  # of the drawing, of its labels, of its values
BAR, STEP = 16, 28  # thickness of a bar, and from one to the next
HEIGHT = 320  # of the line plot
TICKS = 4  # on its vertical axis, about
LABEL = 16  # least distance of two labels


def latency_bars(rows: Sequence[LatencyRow], group: int) -> str:
    """Medians of one group size as bars, with a line from the fastest sample to the 90th percentile."""
    chosen = [row for row in rows if row.group == group]
    longest = max(max(row.p90_ms, row.p50_ms) for row in chosen)
    bars = [_bar(row, row.p50_ms / longest, _verdict(row), index) for index, row in enumerate(chosen)]
    whiskers = [_whisker(row, longest, index) for index, row in enumerate(chosen)]
    return _figure(
        f"Latency, group of {group}: median, with a line from the fastest sample to p90",
        STEP * len(chosen) + 8,
        [*bars, *whiskers],
    )


def roofline_bars(rows: Sequence[LatencyRow]) -> str:
    """Share of the best rate of its precision that each row reaches; nothing where no rate was measured."""
    chosen = [(row, row.roofline.share_of_peak) for row in rows if row.roofline]
    if not chosen:
        return ""
    longest = max(1.0, *(share for _, share in chosen))
    parts = [
        _bar(row, share / longest, f"{share:.0%} of {row.precision}", index, f"{row.engine}, group of {row.group}")
        for index, (row, share) in enumerate(chosen)
    ]
    x = LEFT + (WIDTH - LEFT - RIGHT) / longest
    bottom = STEP * len(chosen) + 8
    parts.append(f'<line class="grid" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}"/>')
    return _figure("Share of the machine's best rate in the same precision; the line is 100 %", bottom, parts)


def throughput_lines(rows: Sequence[LatencyRow]) -> str:
    """Photos a second over the group size; nothing where only one size was timed."""
    groups = sorted({row.group for row in rows})
    if len(groups) < 2:
        return ""
    top, bottom, right = 14, HEIGHT - 34, WIDTH - 320
    fastest = max(row.images_per_s for row in rows)
    x = {group: 50 + (right - 50) * index / (len(groups) - 1) for index, group in enumerate(groups)}

    def y(rate: float) -> float:
        return bottom - (bottom - top) * rate / fastest

    parts = []
    for rate in _ticks(fastest):
        height = y(rate)
        parts.append(f'<line class="grid" x1="50" y1="{height:.1f}" x2="{right}" y2="{height:.1f}"/>')
        parts.append(_text(44, height + 4, f"{rate:g}", "end", "soft"))
    parts += [_text(x[group], bottom + 20, f"group of {group}", "middle", "soft") for group in groups]
    ends = []
    for engine in dict.fromkeys(row.engine for row in rows):
        series = [row for row in rows if row.engine == engine]
        points = [(x[row.group], y(row.images_per_s)) for row in series]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline class="{_kind(series[0])}" points="{path}"/>')
        parts += [f'<circle class="{_kind(series[0])}" cx="{a:.1f}" cy="{b:.1f}" r="4"/>' for a, b in points]
        ends.append((points[-1][1], f"{engine} {series[-1].images_per_s:.1f}/s"))
    parts += [
        _text(right + 12, height + 4, label, "start")
        for height, (_, label) in zip(_spread(sorted(ends)), sorted(ends), strict=True)
    ]
    return _figure("Photos a second over the size of the group; peers are dashed", HEIGHT, parts)


def _ticks(largest: float) -> list[float]:
    """Round numbers from 0 up to `largest`."""
    rough = largest / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [index * step for index in range(int(largest / step) + 1)]


def _spread(ends: Iterable[tuple[float, str]]) -> list[float]:
    """Heights of labels, top to bottom, moved apart where they would overlap."""
    heights: list[float] = []
    for height, _ in ends:
        heights.append(max(height, heights[-1] + LABEL) if heights else height)
    excess = max(0.0, heights[-1] - (HEIGHT - 8)) if heights else 0.0
    for index in range(len(heights) - 1, -1, -1):
        below = heights[index + 1] - LABEL if index + 1 < len(heights) else heights[index] - excess
        heights[index] = min(heights[index], below)
    return heights


def _verdict(row: LatencyRow) -> str:
    failed = row.parity is not None and row.parity.status == "failed"
    return f"{row.p50_ms:.1f} ms{', fails parity' if failed else ''}"


def _bar(row: LatencyRow, share: float, value: str, index: int, label: str | None = None) -> str:
    length, y = share * (WIDTH - LEFT - RIGHT), index * STEP + 6
    middle = y + BAR / 2 + 4
    return (
        _text(LEFT - 10, middle, label or row.engine, "end")
        + f'<rect class="{_kind(row)}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}"/>'
        + _text(WIDTH - RIGHT + 12, middle, value, "start")
    )


def _whisker(row: LatencyRow, longest: float, index: int) -> str:
    scale, y = (WIDTH - LEFT - RIGHT) / longest, index * STEP + 6 + BAR / 2
    start, end = LEFT + min(row.samples_ms) * scale, LEFT + row.p90_ms * scale
    lines = [(start, y, end, y), (start, y - 4, start, y + 4), (end, y - 4, end, y + 4)]
    return "".join(
        f'<line class="whisker" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>' for a, b, c, d in lines
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _figure(title: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<h3>{escape(title)}</h3><svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {height}">'
        f"{''.join(parts)}</svg>"
    )


def _kind(row: LatencyRow) -> str:
    return "peer" if row.is_peer else "ours"
