"""Compare bundles with the eager FP32 network on photos: `python bench/parity.py --bundle build/gconet.gconet`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    from gconet.runtime.cli import run_script

    run_script("parity")

import argparse
from collections.abc import Sequence
from typing import Any

from gconet.bench.bisect_report import bisection_text, scan_verdict
from gconet.bench.bisect_runners import why_not_readable
from gconet.bench.environment import describe_environment
from gconet.bench.output_files import check_output
from gconet.bench.parity_accuracy import find_truth_groups, metric_table
from gconet.bench.parity_check import BundleParity, ParityRequest, bundle_document, check_bundle
from gconet.bench.parity_groups import EagerReference, measure_parity
from gconet.bench.parity_report import html_report
from gconet.bench.parity_statistics import ParityRow, compare, parity_document, parity_table
from gconet.bench.photo_groups import EXAMPLES, read_group
from gconet.bench.reference import reference_network
from gconet.engines.installed import import_or_explain
from gconet.runtime.atomic import replacing
from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.command_line import EXIT_CHECK_FAILED, EXIT_DONE, Parser, add_signature_argument, write_json
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.session import open_session

__all__ = ["ParityRow", "compare", "main", "measure_parity", "parity_document", "parity_table"]

DEFAULT_BUNDLE = Path("build/gconet.gconet")
EPILOG = """\
examples:
  gconet parity --bundle build/gconet.gconet
  gconet parity --bundle a.gconet --bundle b.gconet --checkpoint gconet.safetensors --html parity.html
  gconet parity --bundle build/gconet.gconet --bisect --scan             where it goes wrong
  gconet parity --images images/CoCA --gt gts/CoCA                       what that means for the scores
  gconet parity --all build/all --html parity.html                       every target and precision that runs here

Limits are in bench/tolerances.py, by target and precision, each with its reason. --bisect and --scan look into
onnxruntime and openvino bundles, layer by layer, and need polygraphy and onnxruntime.

Exit codes: 0 all within their limits; 1 not, or a NaN or an infinity was found; 2 bad input."""


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 if a bundle is outside the tolerance of its target and precision."""
    options = _parse(arguments)
    check_output(options.json, options.html)
    if options.bisect or options.scan:
        import_or_explain("polygraphy", ("polygraphy",))
    not_run: dict[str, str] = {}
    given = options.bundle or ([] if options.all else [DEFAULT_BUNDLE])
    bundles = [open_bundle(path, options.require_signature) for path in given]
    if options.all:
        from gconet.bench.parity_all import build_all  # only here: it imports the build, and that this module

        built, not_run = build_all(options.all, options.checkpoint, options.calibration)
        bundles += [open_bundle(path) for path in built]
    elif options.calibration:
        raise UsageError("--calibration is for the bundles that --all builds: give both or neither")
    images = options.images or EXAMPLES
    groups = find_truth_groups(images, options.gt) if options.gt else []
    request = ParityRequest(groups, options.bisect, options.scan)
    parities = _check(bundles, options, request)

    for parity in parities:
        _print(parity)
    for name, why in not_run.items():
        print(f"{name}: not run: {why}")
    documents = [bundle_document(parity, options.images) for parity in parities]
    environment = describe_environment()
    if options.json:
        write_json(options.json, _document(documents, not_run, environment))
    if options.html:
        page = html_report(parities, not_run, documents[0]["images"], environment)
        with replacing(options.html) as temporary:
            temporary.write_text(page, "utf-8")
    return EXIT_DONE if all(parity.passed for parity in parities) else EXIT_CHECK_FAILED


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("gconet parity", "Compare bundles with the eager FP32 network they were built from, on photos.",
                    EPILOG)  # fmt: skip
    parser.add_argument("--bundle", action="append", type=Path, metavar="B",
                        help=f"bundle to check; repeatable (default: {DEFAULT_BUNDLE})")  # fmt: skip
    add_signature_argument(parser)
    parser.add_argument("--all", type=Path, metavar="DIR", help="build every target and precision that runs here in "
                        "this folder, keep those that are there, check them, and say why not of the rest")  # fmt: skip
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="with --all: groups of photos that narrow "
                        "precisions are calibrated on (default: the example photos)")  # fmt: skip
    parser.add_argument("--checkpoint", metavar="F", help="what the bundles were built from (default: the weights that "
                        "ship)")  # fmt: skip
    parser.add_argument("--images", type=Path, metavar="DIR", help="photos of one object; of several groups the "
                        "largest, or all with --gt (default: the example photos)")  # fmt: skip
    parser.add_argument("--gt", type=Path, metavar="DIR", help="their truths, the same tree: also compare MAE, F, E "
                        "and S, every group in one piece")  # fmt: skip
    parser.add_argument("--bisect", action="store_true", help="find the first layer whose error jumps")
    parser.add_argument("--scan", action="store_true", help="find the first layer with a NaN or an infinity")
    parser.add_argument("--device", default="auto", help="where to run the engines: auto, cpu, cuda, cuda:N "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to this file")
    parser.add_argument("--html", type=Path, metavar="F", help="write a page with tables and the worst photo")
    return parser.parse_args(arguments)


def _check(bundles: Sequence[Bundle], options: argparse.Namespace, request: ParityRequest) -> list[BundleParity]:
    """Check bundle by bundle; whatever can be refused is refused before the first."""
    names = [bundle.folder.name for bundle in bundles]
    if len(set(names)) < len(names):
        raise UsageError(f"bundles of the same name cannot be told apart in the report: {', '.join(sorted(names))}")
    problems = [why_not_readable(bundle) for bundle in bundles] if request.bisect or request.scan else []
    if problems and all(problems):
        raise TargetError(str(problems[0]))
    models = [reference_network(bundle.manifest, options.checkpoint) for bundle in bundles]
    reference = EagerReference(models[0], read_group(options.images))  # of one checkpoint, so of one network
    sessions = [open_session(bundle, options.device, None) for bundle in bundles]
    parities = []
    for bundle in bundles:
        session = sessions.pop(0)  # so that its memory is free when the next is measured

        def progress(step: str, name: str = bundle.folder.name) -> None:
            print(f"{name}: {step}" if len(bundles) > 1 else step, file=sys.stderr)

        parities.append(check_bundle(bundle, session, reference, request, progress))
    return parities


def _print(parity: BundleParity) -> None:
    manifest = parity.bundle.manifest
    print(f"{parity.bundle.folder}: {manifest.target} {manifest.precision} against eager PyTorch fp32")
    print(parity_table(parity.rows))
    if parity.metrics:
        print(metric_table(parity.metrics, parity.metric_limits))
    if parity.layers_missing:
        print(f"layers not looked at: {parity.layers_missing}")
    if parity.layers and parity.bisected:
        print(bisection_text(parity.layers))
    if parity.layers and parity.scanned:
        print(scan_verdict(parity.layers))


def _document(
    documents: Sequence[dict[str, Any]], not_run: dict[str, str], environment: dict[str, Any]
) -> dict[str, Any]:
    """A single bundle's figures stand at the top level, as they always did; `bundles` has all in any case."""
    return {
        **(documents[0] if len(documents) == 1 else {}),
        "passed": all(document["passed"] for document in documents),
        "bundles": list(documents),
        **({"not_run": not_run} if not_run else {}),
        "environment": environment,
    }
