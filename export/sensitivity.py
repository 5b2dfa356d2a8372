"""`gconet sensitivity`: what INT8 costs, convolution by convolution, and what keeping some in float buys."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tqdm import tqdm

from gconet.bench.environment import describe_environment
from gconet.bench.output_files import check_output
from gconet.bench.photo_groups import EXAMPLES
from gconet.engines.registry import get_target
from gconet.engines.target import Target
from gconet.export.calibration import read_calibration
from gconet.export.graphs import TAKES_UNSIGNED
from gconet.export.quantisation_islands import ISLANDS
from gconet.export.quantise import prepare
from gconet.export.sensitivity_judge import Judge, read_judged_groups
from gconet.export.sensitivity_report import curve_table, layer_table, write_plot
from gconet.export.sensitivity_sweep import Bench, as_document, sweep_layers, trade_off
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, write_json
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.preprocess import check_size
from gconet.train.checkpoint import SHIPPED, read_checkpoint

TARGETS = ("openvino", "onnxruntime")  # what runs INT8 on a CPU
EPILOG = """\
How to read it. In the first table each convolution is alone in INT8, then alone in float. "share" is its part of the
operations of all convolutions, what INT8 can save there; "IoU" is how well masks at 0.5 agree with those of the eager
FP32 network (mean over the groups, and the worst group); "harm" is IoU lost for each operation. A layer with much harm
and little share belongs in float: it costs no time there. In the second table the most harmful layers go back to float
one by one, and the engine is timed as it would be deployed; take the first row that is good enough. What the project
keeps in float, and why, is the table in export/quantisation_islands.py.

Calibrate and judge on different groups, or INT8 looks better than it is: the photos it has seen are those it fits.

examples:
  gconet sensitivity --calibration photos/train --images photos/test --json sweep.json
  gconet sensitivity --images test/images --gt test/gts --layers 'encoder.*' --steps 5"""


def main(arguments: Sequence[str]) -> int:
    """Run the sweep; errors as raised by what it calls."""
    options = _parse(arguments)
    check_output(options.json)
    checkpoint = read_checkpoint(options.checkpoint)
    preprocessing = checkpoint.info.preprocessing
    if options.size is not None:
        preprocessing = dataclasses.replace(preprocessing, size=options.size)
    target = _runnable(options.target)
    groups = read_judged_groups(options.images, options.gt, options.photos, preprocessing)
    calibration = read_calibration(options.calibration, preprocessing)
    if (options.calibration or EXAMPLES).resolve() == options.images.resolve():
        print("gconet: calibrated and judged on the same photos: what INT8 costs on others is more", file=sys.stderr)

    model = checkpoint.network()
    with tqdm(total=len(calibration), desc="calibration", unit="group", disable=None, leave=False) as bar:
        source = prepare(model, calibration, TAKES_UNSIGNED[target.name], bar.update)
    layers = [layer for layer in source.plans if any(fnmatchcase(layer, pattern) for pattern in options.layers)]
    if not layers:
        raise UsageError(
            f"no layer matches --layers {' '.join(options.layers)}: names are like {next(iter(source.plans))}"
        )
    bench = Bench(target, preprocessing, Judge(model, groups))
    steps = min(options.steps or len(layers), len(layers))
    with tqdm(total=2 * len(layers) + steps + 1, desc="sweep", unit="engine", disable=None, leave=False) as bar:
        rows = sweep_layers(bench, source, layers, bar.update)
        curve = trade_off(bench, source, rows, steps, options.rounds, bar.update)

    photos = sum(len(group.images) for group in groups)
    seen = sum(len(images) for images in calibration)
    print(f"{target.name} {target.version()}, {photos} photos in {len(groups)} groups, calibrated on {seen}\n")
    print(f"{layer_table(rows)}\n\n{curve_table(curve)}")
    if options.json:
        document = {
            "target": target.name,
            "checkpoint": {"file": options.checkpoint.name, "provenance": checkpoint.info.provenance},
            "size": preprocessing.size,
            "calibration": {"groups": len(calibration), "photos": seen},
            "judged": {"groups": len(groups), "photos": photos, "reference": "eager PyTorch, fp32"},
            "islands": [dataclasses.asdict(island) for island in ISLANDS],
            "layers": [as_document(row) for row in rows],
            "trade_off": [as_document(row) for row in curve],
            "environment": describe_environment(),
        }
        write_json(options.json, document)
        try:
            write_plot(options.json.with_suffix(".png"), curve, f"{target.name}, from all in INT8 to all in float")
        except ImportError:
            print("no picture without matplotlib: pip install 'gconet-deploy[accuracy]'", file=sys.stderr)
    return EXIT_DONE


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("gconet sensitivity", "Measure what INT8 does to maps, layer by layer, and what it saves.", EPILOG)
    add = parser.add_argument
    add("--checkpoint", type=Path, default=SHIPPED, metavar="F", help="weights (default: the demo that ships)")
    add("--calibration", type=Path, metavar="DIR", help="groups of photos to calibrate on (default: the examples)")
    add(
        "--images", type=Path, default=EXAMPLES, metavar="DIR", help="other groups, to judge on (default: the examples)"
    )
    add("--gt", type=Path, metavar="DIR", help="their truths, the same tree: adds ΔS and ΔMAE")
    add("--photos", type=positive, default=4, help="of each group to judge on (default: 4)")
    add("--layers", nargs="+", default=["*"], metavar="PATTERN",
        help="sweep only layers that match, such as 'decoder.levels.1.*'; the others stay in float")  # fmt: skip
    add("--steps", type=positive, help="of the trade-off (default: until all layers are in float)")
    add("--rounds", type=positive, default=10, help="latency samples of each step (default: 10)")
    add("--target", choices=TARGETS, default=TARGETS[0], metavar="T",
        help="engine: %(choices)s (default: %(default)s)")  # fmt: skip
    add("--size", type=_size, help="side of the square input (default: the checkpoint's, 224)")
    add("--json", type=Path, metavar="F",
        help="write the figures to this file, and the trade-off beside it as .png if matplotlib is there")  # fmt: skip
    return parser.parse_args(arguments)


def _runnable(name: str) -> Target:
    """The target; raises TargetError if it does not run here."""
    target = get_target(name)
    if problem := target.runs_here():
        raise TargetError(problem)
    return target


def _size(text: str) -> int:
    try:
        return check_size(int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
