"""Build a verified bundle: `python export/build_engine.py [--checkpoint gconet.safetensors]`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    from gconet.runtime.cli import run_script

    run_script("build")

import argparse
from collections.abc import Sequence

from gconet.bench.photo_groups import EXAMPLES
from gconet.engines.plan_options import add_plan_arguments, plan_options
from gconet.engines.registry import TARGETS
from gconet.export.build_request import BuildRequest
from gconet.export.convolution_forms import FORMS
from gconet.export.verified_build import ParityError, build
from gconet.runtime.command_line import EXIT_CHECK_FAILED, EXIT_DONE, Parser, positive
from gconet.runtime.preprocess import check_size
from gconet.train.checkpoint import SHIPPED

EPILOG = """\
examples:
  python export/build_engine.py                                          the fastest engine this machine can run
  python export/build_engine.py --checkpoint gconet.safetensors --precision fp32
  python export/build_engine.py --precision int8 --calibration photos    photos/GROUP/*.jpg, groups like those to come
  python export/build_engine.py --target tensorrt-rtx --compute-capability 8.9 --out build/rtx.gconet

The bundle is written when its engine agrees with the eager PyTorch network on photos and its latency was measured; the
figures are in its manifest.json. An earlier bundle at --out is replaced. `gconet doctor` tells what works here.

Exit codes: 0 done (also with --allow-parity-failure), 1 the engine is outside the tolerance, 2 bad input."""


def main(arguments: Sequence[str]) -> int:
    """Run the build; errors as raised by `build`."""
    parser = Parser("gconet build", "Build a verified GCoNet bundle from a checkpoint.", EPILOG)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, metavar="F",
                        help="weights, .safetensors or the authors' .pth (default: the demo that ships)")  # fmt: skip
    parser.add_argument("--target", default="auto", choices=["auto", *TARGETS],
                        help="engine to build: %(choices)s (default: %(default)s)", metavar="T")  # fmt: skip
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "fp16", "bf16", "int8"],
                        help="arithmetic: %(choices)s (default: %(default)s)", metavar="P")  # fmt: skip
    parser.add_argument("--size", type=_size, help="side of the square input (default: the checkpoint's, 224)")
    parser.add_argument("--max-group", type=positive, default=64, help="largest group to verify (default: 64)")
    parser.add_argument("--calibration", type=Path, metavar="DIR",
                        help="folder of groups of photos to see on how large activations get, for fp16, bf16 and int8; "
                             "best a hundred photos like those to come (default: the example photos)")  # fmt: skip
    parser.add_argument("--compute-capability", action="append", default=[], metavar="CC",
                        help="GPU a TensorRT plan is for, such as 8.9; repeatable (default: the target's)")  # fmt: skip
    parser.add_argument("--convolutions", default="auto", choices=FORMS, metavar="FORM",
                        help="of fp32 engines on CPUs, %(choices)s: Winograd's does a quarter of the multiplications "
                             "with four times as many weights; auto times both, takes the faster for each, and "
                             "direct ones if parity fails (default: %(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("build/gconet.gconet"), help="bundle (default: %(default)s)")
    parser.add_argument("--allow-parity-failure", action="store_true",
                        help="write the bundle even outside the tolerance; its manifest.json says so")  # fmt: skip
    add_plan_arguments(parser)
    options = parser.parse_args(arguments)
    request = BuildRequest(
        options.checkpoint,
        options.target,
        options.precision,
        options.size,
        options.max_group,
        tuple(options.compute_capability),
        options.out,
        plan_options(options),
        options.calibration,
        options.allow_parity_failure,
        options.convolutions,
    )
    try:
        manifest = build(request, _report)
    except ParityError as failure:
        print(f"gconet: {failure}", file=sys.stderr)
        return EXIT_CHECK_FAILED
    if manifest.parity.get("allowed"):
        print(f"gconet: warning: {options.out} is outside the tolerance for {manifest.target} {manifest.precision} and "
              "was written because of --allow-parity-failure; its manifest.json says so", file=sys.stderr)  # fmt: skip
    if options.checkpoint == SHIPPED:
        print("\nThese are the demo's weights, trained briefly on little data: see train/weights/MODEL_CARD.md. "
              "Give others with --checkpoint.")  # fmt: skip
    if "not_measured" not in manifest.parity:  # it runs here
        print(f"\nTry it:\n  gconet detect {_as_typed(EXAMPLES / 'apple')} --bundle {options.out} --out build/maps")
    return EXIT_DONE


def _as_typed(path: Path) -> Path:
    """The path from here, if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _size(text: str) -> int:
    try:
        return check_size(int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _report(step: str, result: str) -> None:
    first, *table = result.splitlines()
    print(f"{step:<12}{first}")
    for line in table:
        print(f"  {line}")
    sys.stdout.flush()
