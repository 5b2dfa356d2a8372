"""The report of a run as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from gconet.bench.latency_run import LatencyRun
from gconet.bench.latency_tables import Table, run_tables
from gconet.bench.latency_verdict import machine_line, verdict_lines


def markdown_report(run: LatencyRun) -> str:
    """Headings and tables."""
    parts = ["# Latency", *verdict_lines(run), machine_line(run)]
    for table in run_tables(run):
        parts += [f"## {table.title}", *([markdown_table(table)] if table.rows else []), table.note]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """A table's header and rows; those outside a limit are bold."""
    lines = [_line(table.header), _line(["---"] * len(table.header))]
    lines += [_line([f"**{cell}**" if outside else cell for cell in row]) for row, outside in table.marked()]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    escaped = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(escaped)} |"
