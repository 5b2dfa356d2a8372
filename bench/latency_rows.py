"""Measuring contenders group size by group size: one row for each, with everything that is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from gconet.bench.contenders import Contender
from gconet.bench.flops import count_layers, total_flop
from gconet.bench.gpu_timing import GpuTiming
from gconet.bench.latency_parity import ContenderParity
from gconet.bench.latency_phases import Phases
from gconet.bench.peak_memory import measure_peak_memory
from gconet.bench.peers import EAGER, PEERS
from gconet.bench.roofline import RooflineShare
from gconet.bench.timing import Timing, WarmUpRule, answer_once, time_interleaved
from gconet.runtime.preprocess import FloatArray

EAGER_ENGINE = PEERS[EAGER].engine


@dataclass(frozen=True)
class LatencyRow:
    """One engine at one group size: milliseconds a group, memory in 10⁶ bytes; None is "not measured".

    Attributes
    ----------
    images_per_s : of the median.
    speedup_over_eager : ratio of medians; None where eager PyTorch was left out.
    samples_ms, warm_up_ms : raw, in order.
    stationary : whether the warm-up had settled.
    drift : last quarter of the samples over the first, minus 1.
    gflop : 10⁹ operations of one group, as the engine's form of the network needs them.
    is_peer : whether it is no bundle.
    device_memory_mb : of a GPU.
    parity, phases, roofline, gpu : None where they were not asked for, or make no sense.
    projected_ms : a projection to the paper's class of cards, of engines on a GPU.
    """

    engine: str
    target: str
    precision: str
    group: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    peak_rss_mb: float | None
    speedup_over_eager: float | None
    samples_ms: Sequence[float]
    warm_up_ms: Sequence[float]
    stationary: bool
    drift: float | None
    gflop: float
    is_peer: bool
    device_memory_mb: float | None = None
    parity: ContenderParity | None = None
    phases: Phases | None = None
    roofline: RooflineShare | None = None
    gpu: GpuTiming | None = None
    projected_ms: float | None = None


def measure_latency(
    contenders: Sequence[Contender],
    inputs: Mapping[int, FloatArray],
    rounds: int,
    warm_up: WarmUpRule,
    progress: tqdm[Any],
) -> list[LatencyRow]:
    """Time every contender at every group size, interleaved; one progress step a round, in which each runs twice.

    Parameters
    ----------
    inputs : network input (N, 3, S, S) by group size N.
    rounds : samples for each.
    """
    rows = []
    for group, images in inputs.items():
        calls = {contender.engine: partial(contender.infer, images) for contender in contenders}
        timings = time_interleaved(calls, rounds, progress.update, warm_up, partial(answer_once, calls))
        eager = timings.get(EAGER_ENGINE)
        rows += [_row(contender, group, timings[contender.engine], eager) for contender in contenders]
    return rows


def _row(contender: Contender, group: int, timing: Timing, eager: Timing | None) -> LatencyRow:
    median = timing.percentile(50)
    memory = measure_peak_memory(contender.process, group)
    manifest = contender.bundle.manifest
    layers = count_layers(manifest.architecture, manifest.preprocessing.size, group, contender.form)
    return LatencyRow(
        engine=contender.engine,
        target=contender.target,
        precision=contender.precision,
        group=group,
        p50_ms=median,
        p90_ms=timing.percentile(90),
        p99_ms=timing.percentile(99),
        images_per_s=group * 1000 / median,
        peak_rss_mb=memory.peak_rss_mb,
        speedup_over_eager=eager.percentile(50) / median if eager else None,
        samples_ms=timing.samples_ms,
        warm_up_ms=timing.warm_up_ms,
        stationary=timing.stationary,
        drift=timing.drift,
        gflop=total_flop(layers) / 1e9,
        is_peer=contender.is_peer,
        device_memory_mb=memory.device_memory_mb,
    )
