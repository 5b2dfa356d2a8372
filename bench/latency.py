"""Measure engines side by side: `python bench/latency.py --bundle build/gconet.gconet --group 2 --budget-ms 16`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    from gconet.runtime.cli import run_script

    run_script("bench")

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from gconet.bench.environment import describe_environment
from gconet.bench.peak_memory import measure_peak_rss_mb
from gconet.bench.timing import WARM_UP_ROUNDS, Timing, time_interleaved
from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.command_line import EXIT_CHECK_FAILED, EXIT_DONE, Parser, positive, positive_float, write_json
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import open_session

EAGER = "eager PyTorch"
EPILOG = """\
Compute only: network input to maps, in memory; reading and resizing photos is not included. Engines take turns in every
round, so that ratios survive a noisy machine. Peak memory is that of a process of its own.

Exit code 1 if a bundle's median exceeds --budget-ms."""


@dataclass(frozen=True)
class LatencyRow:
    """One engine at one group size: milliseconds a group, peak memory in 10⁶ bytes or None, raw samples in order."""

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


@dataclass(frozen=True)
class Contender:
    """Something to time: `infer` takes network input (N, 3, S, S); `bundle` is what it runs, or is the peer of."""

    engine: str
    target: str
    precision: str
    infer: Callable[[FloatArray], object]
    bundle: Bundle


def bundle_contender(bundle: Bundle, threads: int | None) -> Contender:
    """Load a bundle for timing; errors as raised by `open_session`."""
    session = open_session(bundle, "auto", threads)
    manifest = bundle.manifest
    name = bundle.folder.name.removesuffix(".gconet")
    return Contender(
        name, manifest.target, manifest.precision, lambda images: session.infer({"images": images}), bundle
    )


def eager_contender(bundle: Bundle, threads: int | None) -> Contender:
    """Eager PyTorch running a bundle's network; raises TargetError if torch is missing."""
    if not importlib.util.find_spec("torch"):
        raise TargetError("the eager peer needs torch: pip install 'gconet-deploy[build]', or pass --no-eager")
    from gconet.bench.eager import eager_network  # only here, so that bundles can be timed without torch

    return Contender(EAGER, "pytorch", "fp32", eager_network(bundle.manifest, threads), bundle)


def measure_latency(
    contenders: Sequence[Contender], groups: Sequence[int], rounds: int, threads: int | None, progress: tqdm[Any]
) -> list[LatencyRow]:
    """Time every contender at every group size, interleaved; one progress step a round."""
    size = contenders[0].bundle.manifest.preprocessing.size
    rows = []
    for group in groups:
        images = np.random.default_rng(0).standard_normal((group, 3, size, size), np.float32)
        calls = {contender.engine: partial(contender.infer, images) for contender in contenders}
        timings = time_interleaved(calls, rounds, progress.update)
        for contender in contenders:
            peak = measure_peak_rss_mb(contender.bundle.folder, group, threads, eager=contender.engine == EAGER)
            rows.append(_row(contender, group, timings[contender.engine], timings.get(EAGER), peak))
    return rows


def latency_table(rows: Sequence[LatencyRow]) -> str:
    """A table for people."""
    width = max(len(row.engine) for row in rows)
    head = f"{'engine':<{width}} {'target':<12} {'prec':<5} {'group':>5} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8}"
    lines = [f"{head} {'images/s':>8} {'× eager':>8} {'peak MB':>8}"]
    for row in rows:
        peak = f"{row.peak_rss_mb:.0f}" if row.peak_rss_mb else "-"
        speedup = f"{row.speedup_over_eager:.2f}" if row.speedup_over_eager else "-"
        lines.append(
            f"{row.engine:<{width}} {row.target:<12} {row.precision:<5} {row.group:>5} {row.p50_ms:>8.1f} "
            f"{row.p90_ms:>8.1f} {row.p99_ms:>8.1f} {row.images_per_s:>8.1f} {speedup:>8} {peak:>8}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; exit code 1 if a bundle misses the budget."""
    parser = Parser("gconet bench", "Measure the latency of bundles, side by side with eager PyTorch.", EPILOG)
    parser.add_argument("--bundle", action="append", type=Path, help="bundle to time; repeat to compare "
                        "(default: build/gconet.gconet)")  # fmt: skip
    parser.add_argument("--group", action="append", type=positive, help="photos in a group; repeatable (default: 2)")
    parser.add_argument("--budget-ms", type=positive_float, help="fail if a bundle's median exceeds this")
    parser.add_argument("--rounds", type=positive, default=20, help="samples per engine (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: each engine's choice)")
    parser.add_argument("--no-eager", action="store_true", help="leave eager PyTorch out")
    parser.add_argument("--json", type=Path, help="write rows, raw samples and environment to this file")
    options = parser.parse_args(arguments)

    bundles = [open_bundle(path) for path in options.bundle or [Path("build/gconet.gconet")]]
    groups = sorted(set(options.group or [2]))
    _check_comparable(bundles, groups)
    contenders = [bundle_contender(bundle, options.threads) for bundle in bundles]
    if not options.no_eager:
        contenders.append(eager_contender(bundles[0], options.threads))
    steps = len(groups) * (WARM_UP_ROUNDS + options.rounds)
    with tqdm(total=steps, desc="latency", unit="round", disable=None) as progress:
        rows = measure_latency(contenders, groups, options.rounds, options.threads, progress)

    environment = describe_environment()
    print(f"{environment['cpu']}, {environment['cores']} cores, {options.rounds} interleaved rounds")
    print(latency_table(rows))
    late = [row for row in rows if options.budget_ms and row.engine != EAGER and row.p50_ms > options.budget_ms]
    for row in late:
        print(f"over budget: {row.engine} needs {row.p50_ms:.1f} ms for a group of {row.group}, "
              f"the budget is {options.budget_ms:g} ms")  # fmt: skip
    if options.json:
        document = {
            "rows": [dataclasses.asdict(row) for row in rows],
            "measures": "compute only: network input to maps, in memory",
            "threads": options.threads,
            "budget_ms": options.budget_ms,
            "environment": environment,
        }
        write_json(options.json, document)
    return EXIT_CHECK_FAILED if late else EXIT_DONE


def _row(
    contender: Contender, group: int, timing: Timing, eager: Timing | None, peak_rss_mb: float | None
) -> LatencyRow:
    median = timing.percentile(50)
    return LatencyRow(
        engine=contender.engine,
        target=contender.target,
        precision=contender.precision,
        group=group,
        p50_ms=median,
        p90_ms=timing.percentile(90),
        p99_ms=timing.percentile(99),
        images_per_s=group * 1000 / median,
        peak_rss_mb=peak_rss_mb,
        speedup_over_eager=eager.percentile(50) / median if eager else None,
        samples_ms=timing.samples_ms,
    )


def _check_comparable(bundles: Sequence[Bundle], groups: Sequence[int]) -> None:
    for bundle in bundles:
        limit = bundle.manifest.max_group
        if groups[-1] > limit:
            raise UsageError(f"a group of {groups[-1]} is more than {bundle.folder} takes ({limit}): lower --group")
    first = bundles[0].manifest
    for bundle in bundles[1:]:
        if (bundle.manifest.preprocessing.size, bundle.manifest.architecture) != (
            first.preprocessing.size,
            first.architecture,
        ):
            raise UsageError(f"{bundle.folder} and {bundles[0].folder} differ in input size or architecture: "
                             "compare bundles of one network")  # fmt: skip
    names = [bundle.folder.name for bundle in bundles]
    if len(set(names)) < len(names):
        raise UsageError(f"bundles of the same name cannot be told apart in the report: {', '.join(sorted(names))}")
