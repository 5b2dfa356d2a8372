"""A run as tables: aligned for the terminal, and as cells that Markdown and HTML share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gconet.bench.latency_rows import LatencyRow
from gconet.bench.latency_run import GPU_ONLY, LatencyRun
from gconet.bench.projection import PAPERS_CLASS

NONE = "-"


@dataclass(frozen=True)
class Table:
    """Cells under headings; `outside` marks rows that failed, `note` says how to read it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str
    outside: Sequence[bool] = ()

    def marked(self) -> list[tuple[Sequence[str], bool]]:
        """Rows with whether each stands out."""
        return list(zip(self.rows, self.outside or [False] * len(self.rows), strict=True))


def latency_table(rows: Sequence[LatencyRow]) -> str:
    """A table for people at a terminal."""
    width = max(len(row.engine) for row in rows)
    head = f"{'engine':<{width}} {'target':<12} {'prec':<5} {'group':>5} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8}"
    lines = [f"{head} {'images/s':>8} {'× eager':>8} {'peak MB':>8}"]
    lines += [
        f"{row.engine:<{width}} {row.target:<12} {row.precision:<5} {row.group:>5} {row.p50_ms:>8.1f} "
        f"{row.p90_ms:>8.1f} {row.p99_ms:>8.1f} {row.images_per_s:>8.1f} "
        f"{_number(row.speedup_over_eager, '.2f'):>8} {_number(row.peak_rss_mb, '.0f'):>8}"
        for row in rows
    ]
    if any(row.roofline or row.parity for row in rows):  # a build has its own say on parity, before it times anything
        more = [f"{'of peak':>8} parity", *(f"{_share(row):>8} {parity_word(row)}" for row in rows)]
        lines = [f"{line} {columns}" for line, columns in zip(lines, more, strict=True)]
    return "\n".join(lines)


def run_tables(run: LatencyRun) -> list[Table]:
    """Everything a report shows as a table."""
    tables = [_latency(run), _parity(run), _stationarity(run), _phases(run), _roofline(run), _gpu(run)]
    if run.left_out:
        rows = [(name, why) for name, why in run.left_out.items()]
        tables.append(Table("Left out", ["peer", "why"], rows, "Asked for, and not among the rows."))
    return tables


def parity_word(row: LatencyRow) -> str:
    """A verdict, short."""
    return "not checked" if row.parity is None else row.parity.status


def _latency(run: LatencyRun) -> Table:
    header = ["engine", "target", "precision", "group", "p50 ms", "p90 ms", "p99 ms", "images/s", "× eager", "peak MB",
              "GPU MB", "mean |Δ|", "mask IoU", "parity"]  # fmt: skip
    body = []
    for row in run.rows:
        statistics = row.parity.row if row.parity else None
        body.append((
            *_who(row), *(f"{value:.1f}" for value in (row.p50_ms, row.p90_ms, row.p99_ms, row.images_per_s)),
            _number(row.speedup_over_eager, ".2f"), _number(row.peak_rss_mb, ".0f"),
            _number(row.device_memory_mb, ".0f"), f"{statistics.mean_abs:.1e}" if statistics else NONE,
            f"{statistics.mask_iou:.5f}" if statistics else NONE, parity_word(row),
        ))  # fmt: skip
    failed = [row in run.late or row in run.wrong for row in run.rows]
    note = (
        "Milliseconds a group: network input to maps, in memory. Engines take turns in every round, in changing order. "
        "Peak memory is that of a process of its own; GPU memory is not measured without a GPU."
    )
    return Table("Latency and parity", header, body, note, failed)


def _parity(run: LatencyRun) -> Table:
    header = ["engine", "target", "precision", "group", "max |Δ|", "mean |Δ|", "SQNR dB", "cosine", "mask IoU",
              "verdict"]  # fmt: skip
    body, failed = [], []
    for row in run.rows:
        found = row.parity
        if found is None or found.row is None:
            reason = found.reason if found else None
            body.append((*_who(row), *[NONE] * 5, f"not checked: {reason}" if reason else "not checked"))
        else:
            numbers = f"{found.row.max_abs:.1e}", f"{found.row.mean_abs:.1e}", _number(found.row.sqnr_db, ".1f")
            body.append((*_who(row), *numbers, f"{found.row.cosine:.7f}", f"{found.row.mask_iou:.5f}", found.status))
        failed.append(row in run.wrong)
    note = (
        f"Against eager PyTorch fp32 on {run.facts.images}, maps in [0, 1], in this run and on the network inputs that "
        "were timed. Limits are in bench/tolerances.py, each with its reason."
    )
    if run.parity_missing:
        note = f"Parity not checked: {run.parity_missing}."
    return Table("Parity", header, body, note, failed)


def _stationarity(run: LatencyRun) -> Table:
    rule = run.facts.warm_up
    body = [
        (*_who(row), str(len(row.warm_up_ms)), "yes" if row.stationary else "no", str(len(row.samples_ms)),
         NONE if row.drift is None else f"{row.drift:+.1%}")
        for row in run.rows
    ]  # fmt: skip
    note = (
        f"An engine has settled when the median of {rule.window} rounds is within {rule.tolerance:.0%} of that of the "
        f"{rule.window} before; warm-up ends when all have, or after {rule.at_most} rounds. Drift is the last quarter "
        "of the samples against the first."
    )
    header = ["engine", "target", "precision", "group", "warm-up rounds", "settled", "samples", "drift"]
    return Table("Stationarity", header, body, note)


def _phases(run: LatencyRun) -> Table:
    body = []
    for row in run.rows:
        if row.phases:
            p = row.phases
            values = p.decode_ms, p.pre_ms, p.h2d_ms, p.compute_ms, p.d2h_ms, p.post_ms, p.total_ms
            body.append((row.engine, str(row.group), *(_number(value, ".1f") for value in values)))
    header = ["engine", "group", "decode", "pre", "h2d", "compute", "d2h", "post", "sum"]
    note = (
        "Medians in milliseconds a group, of bundles: files to RGB, RGB to network input, to the GPU, input to maps, "
        "from the GPU, maps to the photos' sizes. h2d and d2h: not measured where an engine works in the host's memory."
    )
    return Table("Phases", header, body, note)


def _roofline(run: LatencyRun) -> Table:
    header = ["engine", "target", "precision", "group", "GFLOP", "GFLOP/s", "share of peak", "roofline ms",
              "share of roofline"]  # fmt: skip
    body = []
    for row in run.rows:
        share = row.roofline
        figures = [NONE] * 4
        if share:
            figures = [f"{share.gflops:.3g}", f"{share.share_of_peak:.1%}", f"{share.least_ms:.1f}",
                       f"{share.share_of_roofline:.1%}"]  # fmt: skip
        body.append((*_who(row), f"{row.gflop:.4g}", *figures))
    if isinstance(run.roofline, str):
        return Table("Roofline", header, body, f"The machine's limits were not measured: {run.roofline}.")
    rates = "; ".join(f"{name} {rate.gflops:.0f} GFLOP/s ({rate.by})" for name, rate in run.roofline.rates.items())
    note = (
        f"Best rates in this run: {rates}; copying {run.roofline.copy_gb_per_s:.1f} GB/s. GFLOP are those of the "
        "network as the engine runs it. The roofline is the sum over layers of what takes longer, arithmetic at the "
        "best rate or memory at copy speed. Winograd convolutions and fused layers need less than is counted, so a "
        "share may pass 100 %."
    )
    return Table("Roofline", header, body, note)


def _gpu(run: LatencyRun) -> Table:
    header = ["engine", "group", "compute", "enqueue", "compute, no graph", "enqueue, no graph", PAPERS_CLASS.name]
    body = []
    for row in run.rows:
        if row.gpu:
            g = row.gpu
            values = g.compute_ms, g.enqueue_ms, g.compute_plain_ms, g.enqueue_plain_ms, row.projected_ms
            body.append((row.engine, str(row.group), *(_number(value, ".2f") for value in values)))
    if not body:
        return Table("GPU", header, [], f"Not measured: {GPU_ONLY}.")
    note = (
        "Medians in milliseconds between CUDA events, with a CUDA graph and without. The last column is a projection, "
        f"not a measurement: {PAPERS_CLASS.tflops} TFLOP/s and {PAPERS_CLASS.gb_per_s:g} GB/s at the share of the "
        "roofline reached here."
    )
    return Table("GPU", header, body, note)


def _who(row: LatencyRow) -> tuple[str, str, str, str]:
    return row.engine, row.target, row.precision, str(row.group)


def _share(row: LatencyRow) -> str:
    return f"{row.roofline.share_of_peak:.0%}" if row.roofline else NONE


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else f"{value:{form}}"
