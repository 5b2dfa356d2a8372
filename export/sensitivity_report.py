"""The sensitivity sweep as tables for people, and as a picture; only the picture needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gconet.export.quantisation_islands import int8_layers
from gconet.export.sensitivity_judge import Judgement
from gconet.export.sensitivity_sweep import CurveRow, LayerRow
from gconet.runtime.atomic import replacing

AGREEMENT = f"{'IoU':>6} {'worst':>6} {'mean |Δ|':>9}"  # titles of what _agreement fills in


def layer_table(rows: Sequence[LayerRow]) -> str:
    """What each layer does alone, the most harmful for its operations first."""
    width = max(len(row.layer) for row in rows)
    lines = [
        f"{'':<{width}} {'':>8} | {'alone in INT8':^23} | {'alone in float':^23} |",
        f"{'layer':<{width}} {'share':>8} | {AGREEMENT} | {AGREEMENT} | {'harm':>8}",
    ]
    in_int8 = set(int8_layers(row.layer for row in rows))
    lines += [
        f"{row.layer:<{width}} {row.share:>8.3%} | {_agreement(row.only)} | {_agreement(row.without)} | "
        f"{row.harm:>8.3f}{'' if row.layer in in_int8 else '  stays float'}"
        for row in sorted(rows, key=lambda row: row.harm, reverse=True)
    ]
    return "\n".join(lines)


def curve_table(curve: Sequence[CurveRow]) -> str:
    """The trade-off, step by step."""
    width = max(len("into float"), *(len(row.floated) for row in curve))
    head = f"{'floats':>6} {'into float':<{width}} {'INT8':>8} {AGREEMENT}"
    lines = [f"{head} {'ΔS':>8} {'ΔMAE':>8} {'ms':>8} {'× fp32':>7}"]
    lines += [
        f"{count:>6} {row.floated:<{width}} {row.share:>8.2%} {_agreement(row.judgement)} "
        f"{_delta(row.judgement.delta_s)} {_delta(row.judgement.delta_mae)} {row.p50_ms:>8.1f} "
        f"{row.fp32_ms / row.p50_ms:>7.2f}"
        for count, row in enumerate(curve)
    ]
    return "\n".join(lines)


def write_plot(path: Path, curve: Sequence[CurveRow], title: str) -> None:
    """The trade-off as a PNG; raises UsageError if it cannot be written, ImportError without matplotlib."""
    from matplotlib.figure import Figure  # only here: everything else works without

    picture = Figure(figsize=(6, 4.5), dpi=150, layout="constrained")
    axes = picture.add_subplot(title=title, xlabel="operations in INT8 (%)", ylabel="IoU of the masks with FP32")
    shares = [100 * row.share for row in curve]
    axes.plot(shares, [row.judgement.mask_iou for row in curve], "ko-", markersize=3, label="IoU, mean over groups")
    axes.plot(shares, [row.judgement.worst_iou for row in curve], "k:", label="IoU of the worst group")
    axes.grid(color="0.9")
    latency = axes.twinx()
    latency.set_ylabel("times as fast as fp32, a pair")
    latency.plot(shares, [row.fp32_ms / row.p50_ms for row in curve], color="0.55", label="speed")
    latency.set_ylim(bottom=0)
    axes.legend(handles=[*axes.get_lines(), *latency.get_lines()], loc="lower left")
    with replacing(path) as temporary:
        picture.savefig(temporary, format="png")


def _agreement(judgement: Judgement) -> str:
    return f"{judgement.mask_iou:>6.4f} {judgement.worst_iou:>6.4f} {judgement.mean_abs:>9.1e}"


def _delta(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:>+8.4f}"
