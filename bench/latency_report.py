"""The report of a run as one page: no other file, no network, nothing said by colour alone, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gconet.bench.latency_plots import latency_bars, roofline_bars, throughput_lines
from gconet.bench.latency_run import LatencyRun
from gconet.bench.latency_tables import Table, run_tables
from gconet.bench.latency_verdict import machine_line, verdict_lines

STYLE = """
:root { color-scheme: light dark; --ink: #16181d; --soft: #5b616e; --line: #d5d8de; --page: #ffffff; --band: #f1f2f5;
  --ours: #1f6feb; --peer: #8a919e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaee; --soft: #a3a9b6; --line: #3a3f4a; --page: #14161a;
  --band: #22252c; --ours: #6ea8ff; --peer: #7d8492; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-top: 2px solid var(--ink); padding-top: .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; }
th, td { padding: .15rem .7rem; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { border-bottom: 2px solid var(--ink); }
th:first-child, td:first-child, td.text { text-align: left; white-space: normal; }
tr.outside td { font-weight: bold; background: var(--band); }
.verdict { font-weight: bold; margin: .2rem 0; }
.note { font-size: .85em; color: var(--soft); }
svg { display: block; width: 100%; height: auto; max-width: 60rem; margin: .5rem 0 1rem; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
svg .soft { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--line); }
svg .ours { fill: var(--ours); } svg .peer { fill: var(--peer); }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
svg polyline { fill: none; stroke-width: 2; }
svg polyline.ours { stroke: var(--ours); } svg polyline.peer { stroke: var(--peer); stroke-dasharray: 6 4; }
svg .ours, svg .peer { fill-opacity: 1; } svg polyline.ours, svg polyline.peer { fill: none; }
@media print { body { font-size: 12px; } svg, tr { break-inside: avoid; } }
"""


def html_report(run: LatencyRun) -> str:
    """The page."""
    body = [
        "<h1>Latency</h1>",
        *(_paragraph(line, "verdict") for line in verdict_lines(run)),
        _paragraph(machine_line(run), "note"),
        *(latency_bars(run.rows, group) for group in sorted({row.group for row in run.rows})),
        throughput_lines(run.rows),
        roofline_bars(run.rows),
    ]
    for table in run_tables(run):
        body += [
            f"<h2>{escape(table.title)}</h2>",
            *([_table(table)] if table.rows else []),
            _paragraph(table.note, "note"),
        ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Latency</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    lines = [
        f"<tr{' class=outside' if outside else ''}>{''.join(_cell(cell) for cell in row)}</tr>"
        for row, outside in table.marked()
    ]
    return (
        f'<div class="wide"><table><thead>{_header(table.header)}</thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _header(titles: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<th>{escape(title)}</th>' for title in titles)}</tr>"


def _cell(text: str) -> str:
    numeric = len(text) < 24 and any(character.isdigit() or text == "-" for character in text)
    return f"<td>{escape(text)}</td>" if numeric else f'<td class="text">{escape(text)}</td>'


def _paragraph(text: str, kind: str) -> str:
    return f'<p class="{kind}">{escape(text)}</p>'
