"""One run of the benchmark as a whole: what was measured, what was left out and why, and its document for JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gconet.bench.contenders import Contender
from gconet.bench.flops import LayerCost, count_layers
from gconet.bench.gpu_timing import GpuTiming
from gconet.bench.latency_parity import ContenderParity
from gconet.bench.latency_phases import HostPhases, Phases
from gconet.bench.latency_rows import LatencyRow
from gconet.bench.parity_statistics import REFERENCE
from gconet.bench.projection import PAPERS_CLASS, project_ms
from gconet.bench.roofline import Roofline, share_of
from gconet.bench.timing import WarmUpRule

MEASURES = "compute only: network input to maps, in memory"
GPU_ONLY = "only for bundles that run on a GPU"


@dataclass(frozen=True)
class RunFacts:
    """What a run was asked for and taken on.

    Attributes
    ----------
    images : what photos were timed.
    threads : of the CPU; None left the choice to each engine.
    environment : as `describe_environment` gives it.
    clocks : as `read_clocks` gives them, by moment.
    """

    images: str
    rounds: int
    warm_up: WarmUpRule
    threads: int | None
    budget_ms: float | None
    environment: Mapping[str, Any]
    clocks: Mapping[str, Any]


@dataclass(frozen=True)
class LatencyRun:
    """Rows and what goes with them.

    Attributes
    ----------
    left_out : why each peer that was asked for is not among the rows, by its name in reports.
    roofline : the machine's limits, or why they were not measured.
    parity_missing : why parity was checked for none; None where it was.
    """

    rows: Sequence[LatencyRow]
    facts: RunFacts
    left_out: Mapping[str, str]
    roofline: Roofline | str
    parity_missing: str | None

    @property
    def late(self) -> list[LatencyRow]:
        """Bundles whose median is over the budget."""
        budget = self.facts.budget_ms
        return [row for row in self.rows if budget and not row.is_peer and row.p50_ms > budget]

    @property
    def wrong(self) -> list[LatencyRow]:
        """What was timed and is outside its tolerance."""
        return [row for row in self.rows if row.parity is not None and row.parity.status == "failed"]

    def document(self) -> dict[str, Any]:
        """For JSON."""
        facts = self.facts
        return {
            "rows": [row_document(row) for row in self.rows],
            "measures": MEASURES,
            "rounds": facts.rounds,
            "warm_up": dataclasses.asdict(facts.warm_up),
            "images": facts.images,
            "parity": {"reference": REFERENCE} if self.parity_missing is None else {"not_checked": self.parity_missing},
            "left_out": dict(self.left_out),
            "roofline": {"not_measured": self.roofline}
            if isinstance(self.roofline, str)
            else dataclasses.asdict(self.roofline),
            "passed": not self.late and not self.wrong,
            "threads": facts.threads,
            "budget_ms": facts.budget_ms,
            "clocks": facts.clocks,
            "environment": facts.environment,
        }


def row_document(row: LatencyRow) -> dict[str, Any]:
    """One row for JSON."""
    document = dataclasses.asdict(row)
    document["parity"] = row.parity.document() if row.parity else {"status": "not checked", "reason": "not asked for"}
    document["gpu"] = document["gpu"] or {"not_measured": GPU_ONLY}
    if row.projected_ms is None:
        document["projection"] = {"not_measured": "only for engines on a GPU whose limits were measured"}
    else:
        document["projection"] = {"ms": row.projected_ms, "card": dataclasses.asdict(PAPERS_CLASS)}
    del document["projected_ms"]
    return document


def complete_rows(
    rows: Sequence[LatencyRow],
    contenders: Sequence[Contender],
    parity: Mapping[tuple[str, int], ContenderParity],
    host: Mapping[int, HostPhases],
    gpu: Mapping[tuple[str, int], GpuTiming],
    roofline: Roofline | str,
) -> list[LatencyRow]:
    """Put together what was measured apart: parity and GPU by (engine, group), phases of the host by group."""
    by_engine = {contender.engine: contender for contender in contenders}
    completed = []
    for row in rows:
        key = row.engine, row.group
        contender = by_engine[row.engine]
        timing = gpu.get(key)
        layers = contender_layers(contender, row.group)
        share = None
        if not isinstance(roofline, str):
            share = share_of(layers, timing.compute_ms if timing else row.p50_ms, row.precision, roofline)
        completed.append(
            dataclasses.replace(
                row,
                parity=parity.get(key),
                phases=None if row.is_peer else _phases(row, host[row.group], timing),
                roofline=share,
                gpu=timing,
                projected_ms=project_ms(layers, row.precision, share) if share and timing else None,
            )
        )
    return completed


def contender_layers(contender: Contender, group: int) -> list[LayerCost]:
    """The layers that a contender runs for a group."""
    manifest = contender.bundle.manifest
    return count_layers(manifest.architecture, manifest.preprocessing.size, group, contender.form)


def _phases(row: LatencyRow, host: HostPhases, gpu: GpuTiming | None) -> Phases:
    return Phases(
        decode_ms=host.decode_ms,
        pre_ms=host.pre_ms,
        h2d_ms=gpu.h2d_ms if gpu else None,
        compute_ms=gpu.compute_ms if gpu else row.p50_ms,
        d2h_ms=gpu.d2h_ms if gpu else None,
        post_ms=host.post_ms,
    )
