"""The parity report as one HTML page: no other file, no network, and nothing said by colour alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from gconet.bench.bisect_layers import JUMP_FACTOR, Bisection
from gconet.bench.bisect_report import jump_verdict, scan_verdict
from gconet.bench.parity_accuracy import JUDGED, MetricParity
from gconet.bench.parity_check import BundleParity
from gconet.bench.parity_pictures import draw_worst
from gconet.bench.parity_statistics import REFERENCE, ParityRow, in_decibels
from gconet.bench.tolerances import MetricTolerance, Tolerance

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-top: 2px solid #111; padding-top: .5rem; }
table { border-collapse: collapse; margin: .8rem 0; }
th, td { padding: .15rem .7rem; text-align: right; font-variant-numeric: tabular-nums;
  border-bottom: 1px solid #ccc; }
th { border-bottom: 2px solid #111; white-space: nowrap; }
th:first-child, td:first-child, td.text { text-align: left; }
tr.outside td { font-weight: bold; background: #eee; }
.verdict { font-weight: bold; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; width: 15rem; }
figure img { width: 100%; image-rendering: pixelated; border: 1px solid #111; }
figcaption, .note { font-size: .85em; color: #444; }
.bar { text-align: left; }
.bar div { background: #555; height: .7rem; }
@media print { body { font-size: 12px; } h3 { break-after: avoid; } tr, figure { break-inside: avoid; } }
"""
OUTSIDE = "outside the tolerance"


def html_report(
    parities: Sequence[BundleParity], not_run: Mapping[str, str], images: str, environment: Mapping[str, Any]
) -> str:
    """The page.

    Parameters
    ----------
    not_run : why each engine that is not among `parities` is not.
    images : what photos were looked at.
    environment : as `describe_environment` gives it.
    """
    failed = [parity.name for parity in parities if not parity.passed]
    verdict = f"{OUTSIDE}: {', '.join(failed)}" if failed else "all within their tolerances"
    libraries = ", ".join(f"{name} {version}" for name, version in environment.get("libraries", {}).items())
    body = [
        "<h1>Parity with eager PyTorch</h1>",
        f'<p class="verdict">{escape(verdict)}</p>',
        _paragraph(f"Every engine is compared with {REFERENCE}, on {images}. Maps are in [0, 1]."),
        _paragraph(f"{environment.get('cpu')}, {environment.get('os')}; {libraries}", "note"),
        _overview(parities),
        *(_bundle(parity) for parity in parities),
    ]
    if not_run:
        body += ["<h2>Not run</h2>", _table(["engine", "why"], [((name, why), False) for name, why in not_run.items()])]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Parity with eager PyTorch</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _overview(parities: Sequence[BundleParity]) -> str:
    rows = []
    for parity in parities:
        manifest = parity.bundle.manifest
        figures = (
            f"{max(row.mean_abs for row in parity.rows):.1e}",
            f"{min(row.mask_iou for row in parity.rows):.5f}",
            "within" if parity.passed else OUTSIDE,
        )
        rows.append(((parity.name, manifest.target, manifest.precision, *figures), not parity.passed))
    return _table(["engine", "target", "precision", "worst mean |Δ|", "worst mask IoU", "verdict"], rows)


def _bundle(parity: BundleParity) -> str:
    manifest = parity.bundle.manifest
    worst = parity.worst
    figures = [
        f'<figure><img alt="{escape(picture.caption)}" src="{picture.data_uri}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in draw_worst(worst)
    ]
    title = f"{parity.name}: {manifest.target} {manifest.target_version}, {manifest.precision}"
    parts = [
        f"<h2>{escape(title)}</h2>",
        f'<p class="verdict">{"within the tolerance" if parity.passed else OUTSIDE}</p>',
        _statistics(parity.rows, parity.limits),
        f"<h3>Worst photo: number {worst.index + 1} of the group of {worst.group}, mean |Δ| {worst.mean_abs:.1e}</h3>",
        f'<div class="pictures">{"".join(figures)}</div>',
    ]
    if parity.metrics:
        parts += ["<h3>Scores on labelled groups</h3>", _metrics(parity.metrics, parity.metric_limits)]
    if parity.layers_missing:
        parts.append(_paragraph(f"Layers not looked at: {parity.layers_missing}.", "note"))
    if parity.layers and parity.scanned:
        parts += ["<h3>NaN and infinity</h3>", _paragraph(scan_verdict(parity.layers), "verdict")]
    if parity.layers and parity.bisected:
        parts += ["<h3>Layer by layer</h3>", _layers(parity.layers)]
    return "\n".join(parts)


def _statistics(rows: Sequence[ParityRow], limits: Tolerance) -> str:
    header = ["group", "max |Δ|", "mean |Δ|", "L2", "SQNR dB", "cosine", "mask IoU", "verdict"]
    body = []
    for row in rows:
        verdict = "within" if row.passed else OUTSIDE if row.finite else "not finite"
        numbers = f"{row.max_abs:.1e}", f"{row.mean_abs:.1e}", f"{row.l2:.1e}", in_decibels(row.sqnr_db)
        body.append(((row.group, *numbers, f"{row.cosine:.7f}", f"{row.mask_iou:.5f}", verdict), not row.passed))
    note = f"Limits: {limits}."
    return _table(header, body) + _paragraph(note, "note")


def _metrics(metrics: MetricParity, limits: MetricTolerance) -> str:
    body = []
    for name, title in JUDGED.items():
        delta, limit = metrics.deltas[name], getattr(limits, name)
        values = f"{getattr(metrics.reference, name):.4f}", f"{getattr(metrics.engine, name):.4f}"
        outside = not abs(delta) <= limit
        body.append(((title, *values, f"{delta:+.5f}", f"{limit:g}", OUTSIDE if outside else "within"), outside))
    groups = f"{metrics.photos} photos in {metrics.groups} groups, by eval-co-sod on maps rounded to 8 bits"
    note = f"{groups}. Limits: {limits.reason}."
    return _table(["score", "eager", "engine", "Δ", "limit", "verdict"], body) + _paragraph(note, "note")


def _layers(layers: Bisection) -> str:
    longest = max((row.sqnr_db for row in layers.rows if row.sqnr_db is not None), default=1.0)
    lines = []
    for row in layers.rows:
        width = 6 * max(row.sqnr_db or 0.0, 0.0) / longest if longest > 0 else 0.0  # rem
        cells = [
            f'<td class="text">{escape(row.layer)}</td>',
            *(f"<td>{value:.1e}</td>" for value in (row.inherited, row.relative_error)),
            f"<td>{in_decibels(row.sqnr_db)}</td>",
            f'<td class="bar"><div style="width: {width:.2f}rem"></div></td>',
            *(f"<td>{value:.3g}</td>" for value in (row.largest_engine, row.largest_reference)),
            f"<td>{'jumps' if row.jumps else 'not finite' if row.not_finite else ''}</td>",
        ]
        lines.append(f"<tr{' class=outside' if row.jumps or row.not_finite else ''}>{''.join(cells)}</tr>")
    header = ["layer", "error before", "error", "SQNR dB", "", "max |x|", "fp32 max |x|", ""]
    note = (
        f"A group of {layers.group}, against the exported fp32 graph, whose maps are within {layers.graph_max_abs:.1e} "
        f"of eager PyTorch's. An error jumps when it is above {JUMP_FACTOR:g} times what it inherits and "
        f"{JUMP_FACTOR:g} times what {layers.precision} explains, {layers.rounding.relative_error:g}: "
        f"{layers.rounding.reason}."
    )
    return (
        _paragraph(jump_verdict(layers), "verdict") + _paragraph(note, "note")
        + f"<table><thead>{_header(header)}</thead><tbody>{''.join(lines)}</tbody></table>"
    )  # fmt: skip


def _table(header: Sequence[str], rows: Iterable[tuple[Sequence[object], bool]]) -> str:
    """Rows come with whether they stand out."""
    lines = [
        f"<tr{' class=outside' if outside else ''}>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>"
        for cells, outside in rows
    ]
    return f"<table><thead>{_header(header)}</thead><tbody>{''.join(lines)}</tbody></table>"


def _header(titles: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<th>{escape(title)}</th>' for title in titles)}</tr>"


def _paragraph(text: str, kind: str = "") -> str:
    return f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>"
