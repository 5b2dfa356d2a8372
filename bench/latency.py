"""Measure engines side by side: `python bench/latency.py --bundle build/gconet.gconet --group 2 --budget-ms 16`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    from gconet.runtime.cli import run_script

    run_script("bench")

import argparse
import datetime
from collections.abc import Sequence

from gconet.bench.environment import describe_bundle
from gconet.bench.latency_markdown import markdown_report
from gconet.bench.latency_measure import BenchRequest, measure_run
from gconet.bench.latency_report import html_report
from gconet.bench.latency_run import LatencyRun
from gconet.bench.latency_samples import META_NAME, write_samples
from gconet.bench.latency_tables import latency_table
from gconet.bench.latency_verdict import machine, verdict_lines
from gconet.bench.output_files import check_output
from gconet.bench.peers import EAGER, PEERS, choose_peers
from gconet.bench.timing import WarmUpRule
from gconet.runtime.atomic import replacing
from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.command_line import (
    EXIT_CHECK_FAILED,
    EXIT_DONE,
    Parser,
    add_signature_argument,
    positive,
    positive_float,
    write_json,
)
from gconet.runtime.errors import UsageError

DEFAULT_BUNDLE = Path("build/gconet.gconet")
DEFAULT_GROUP = 2  # the paper's pair
WARM_UP_AT_MOST = 12

EPILOG = f"""\
examples:
  gconet bench --bundle build/gconet.gconet --group 2 --budget-ms 16     a gate for continuous integration
  gconet bench --bundle a.gconet --bundle b.gconet --group 2 --group 5 --html latency.html
  gconet bench --checkpoint gconet.safetensors --peers all --group 2 --group 5 --group 16 --group 40 \\
      --json latency.json --markdown latency.md --samples samples        everything, for a report
  gconet bench --no-eager --no-parity --no-roofline                      bundles alone; torch is not even loaded

Milliseconds are of computing only: network input to maps, in memory, of photos. Engines take turns in every round, so
that ratios survive a noisy machine. Reports also show decode, pre, h2d, compute, d2h and post apart.

Everything that is timed is first compared with eager PyTorch fp32 on the same input, by the limits of
bench/tolerances.py. That needs the weights the bundles were built from: --checkpoint, but for those that ship.

--peers: {", ".join(name for name in PEERS if name != EAGER)}
The last three run an export of the network as trained, of a fixed group size, without our rewrites. A peer that cannot
run here is left out, and the report says why.

A share of peak compares with the best rate of matrix products in the same precision, measured in the same run.
Peak memory is that of a process of its own.

Exit codes: 0 done; 1 a bundle's median exceeds --budget-ms, or what was timed is outside its tolerance; 2 bad input."""


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; exit code 1 if a bundle misses the budget, or what was timed its tolerance."""
    options = _parse(arguments)
    peers = choose_peers(options.peers)
    groups = sorted(set(options.group or [DEFAULT_GROUP]))
    bundles = [open_bundle(path, options.require_signature) for path in options.bundle or [DEFAULT_BUNDLE]]
    check_comparable(bundles, groups)
    check_output(options.json, options.markdown, options.html, options.samples and options.samples / META_NAME)
    request = BenchRequest(
        groups=groups,
        device=options.device,
        rounds=options.rounds,
        warm_up=WarmUpRule(options.warm_up),
        threads=options.threads,
        budget_ms=options.budget_ms,
        eager=not options.no_eager,
        peers=peers,
        checkpoint=options.checkpoint,
        images=options.images,
        parity=not options.no_parity,
        roofline=not options.no_roofline,
    )
    run = measure_run(bundles, request)
    print(f"{machine(run)}, {options.rounds} interleaved rounds")
    print(latency_table(run.rows))
    print("\n".join(verdict_lines(run)))
    _write(run, bundles, options)
    return EXIT_CHECK_FAILED if run.late or run.wrong else EXIT_DONE


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("gconet bench", "Measure bundles side by side with eager PyTorch and other peers: latency, memory, "
                    "parity.", EPILOG)  # fmt: skip
    what = parser.add_argument_group("what to time")
    what.add_argument("--bundle", action="append", type=Path, metavar="B",
                      help=f"bundle to time; repeat to compare (default: {DEFAULT_BUNDLE})")  # fmt: skip
    add_signature_argument(what)
    what.add_argument("--group", action="append", type=positive, metavar="N",
                      help=f"photos in a group; repeatable (default: {DEFAULT_GROUP})")  # fmt: skip
    what.add_argument("--images", type=Path, metavar="DIR", help="photos of one object; of several "
                      "groups the largest (default: the example photos)")  # fmt: skip
    what.add_argument("--checkpoint", type=Path, metavar="F", help="what the bundles were built from (default: the "
                      "weights that ship)")  # fmt: skip
    what.add_argument("--peers", action="append", default=[], metavar="NAMES", help="peers to time too, with commas "
                      "between: names as below, all or none (default: none but eager PyTorch)")  # fmt: skip
    what.add_argument("--no-eager", action="store_true", help="leave eager PyTorch out")
    how = parser.add_argument_group("how")
    how.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where bundles run, and PyTorch "
                     "beside them; auto: GPUs for TensorRT, else the CPU (default: %(default)s)")  # fmt: skip
    how.add_argument("--rounds", type=positive, default=20, metavar="N",
                     help="samples per engine and group (default: %(default)s)")  # fmt: skip
    how.add_argument("--warm-up", type=positive, default=WARM_UP_AT_MOST, metavar="N", help="rounds before them at "
                     "most; fewer if medians settle earlier (default: %(default)s)")  # fmt: skip
    how.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: each engine's choice)")
    how.add_argument("--no-parity", action="store_true", help="do not compare maps; reports say so. For machines and "
                     "processes that must not load torch")  # fmt: skip
    how.add_argument("--no-roofline", action="store_true", help="do not measure the machine's best rates")
    out = parser.add_argument_group("what comes of it")
    out.add_argument("--budget-ms", type=positive_float, metavar="MS", help="fail if a bundle's median exceeds this")
    out.add_argument("--json", type=Path, metavar="F", help="write rows, raw samples and environment to this file")
    out.add_argument("--markdown", type=Path, metavar="F", help="write tables for a README or a pull request")
    out.add_argument("--html", type=Path, metavar="F", help="write one page with plots and tables")
    out.add_argument("--samples", type=Path, metavar="DIR", help="write every sample as JSON Lines, and meta.json: "
                     "hashes, versions, threads, clocks")  # fmt: skip
    return parser.parse_args(arguments)


def _write(run: LatencyRun, bundles: Sequence[Bundle], options: argparse.Namespace) -> None:
    if options.json:
        names = {bundle.folder.name.removesuffix(".gconet"): describe_bundle(bundle) for bundle in bundles}
        write_json(options.json, {**run.document(), "bundles": names})
    for path, report in ((options.markdown, markdown_report), (options.html, html_report)):
        if path:
            with replacing(path) as temporary:
                temporary.write_text(report(run), "utf-8")
    if options.samples:
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_samples(options.samples, run, bundles, created)


def check_comparable(bundles: Sequence[Bundle], groups: Sequence[int]) -> None:
    """Raise UsageError if a bundle does not take the largest group, or a report could not tell bundles apart."""
    for bundle in bundles:
        limit = bundle.manifest.max_group
        if groups[-1] > limit:
            raise UsageError(f"a group of {groups[-1]} is more than {bundle.folder} takes ({limit}): lower --group")
    first = bundles[0].manifest
    for bundle in bundles[1:]:
        manifest = bundle.manifest
        if (manifest.preprocessing, manifest.architecture) != (first.preprocessing, first.architecture):
            raise UsageError(f"{bundle.folder} and {bundles[0].folder} differ in input size, normalisation or "
                             "architecture: compare bundles of one network")  # fmt: skip
    names = [bundle.folder.name for bundle in bundles]
    if len(set(names)) < len(names):
        raise UsageError(f"bundles of the same name cannot be told apart in the report: {', '.join(sorted(names))}")
    for name in names:
        if name.removesuffix(".gconet") in {peer.engine for peer in PEERS.values()}:
            raise UsageError(f"a bundle called {name} cannot be told from a peer in the report: rename its folder")
