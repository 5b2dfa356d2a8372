"""Show where a bundle's time goes: `python bench/profile_layers.py --bundle build/gconet.gconet --group 2`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    from gconet.runtime.cli import run_script

    run_script("profile")

import argparse
from collections.abc import Sequence

from gconet.bench.environment import describe_bundle
from gconet.bench.latency import DEFAULT_BUNDLE, DEFAULT_GROUP, WARM_UP_AT_MOST, check_comparable
from gconet.bench.latency_markdown import markdown_table
from gconet.bench.layer_profile import LayerProfile, ProfileRequest, profile_bundle
from gconet.bench.output_files import check_output
from gconet.bench.profile_tables import kind_table, layer_table, machine_line, terminal_table, total_lines
from gconet.bench.timing import WarmUpRule
from gconet.runtime.atomic import replacing
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import EXIT_DONE, Parser, add_signature_argument, positive, write_json

EPILOG = """\
examples:
  gconet profile --bundle build/gconet.gconet                    the slowest layers of a pair, sums by kind
  gconet profile --bundle build/int8.gconet --group 16 --top 10
  gconet profile --bundle build/gconet.gconet --json profile.json --markdown profile.md      every layer
  gconet profile --bundle build/gconet.gconet --no-roofline      torch is not loaded

Look for: what is neither convolution, winograd nor affinity (a reorder is the same values in another layout, a convert
in another type); a precision that is wider than the bundle's; a small share of the roofline beside many milliseconds.

The engine is timed twice in every round, as users run it and with its own layer timing switched on (OpenVINO's
PERF_COUNT, ONNX Runtime's profiling); the last line says what that costs. OpenVINO's counters are means over all calls
in whole microseconds, so a layer is known to some 0.03 ms. ONNX Runtime answers once more before each call that counts,
for its threads spin on after an answer and would slow the other engine. Layers fused into one are one row, under the
convolution's name.

OpenVINO and ONNX Runtime bundles; of TensorRT plans, whose layers are not timed, the builder's own account of the
layers is in the bundle.

Exit codes: 0 done; 2 bad input."""


def main(arguments: Sequence[str]) -> int:
    """Time the layers of a bundle and print them."""
    options = _parse(arguments)
    bundle = open_bundle(options.bundle, options.require_signature)
    check_comparable([bundle], [options.group])
    check_output(options.json, options.markdown)
    request = ProfileRequest(
        group=options.group,
        rounds=options.rounds,
        warm_up=WarmUpRule(options.warm_up),
        threads=options.threads,
        images=options.images,
        roofline=not options.no_roofline,
    )
    profile = profile_bundle(bundle, request)
    print(f"{profile.engine}, {profile.target} {profile.precision}, a group of {request.group}")
    print(machine_line(profile), end="\n\n")
    for table in (layer_table(profile, options.top), kind_table(profile)):
        print(terminal_table(table), end="\n\n")
    print("\n".join(total_lines(profile)))
    if options.json:
        write_json(options.json, {**profile.document(), "bundle": describe_bundle(bundle)})
    if options.markdown:
        with replacing(options.markdown) as temporary:
            temporary.write_text(markdown_profile(profile), "utf-8")
    return EXIT_DONE


def markdown_profile(profile: LayerProfile) -> str:
    """Every layer, the sums and the machine, as Markdown."""
    title = f"# Layers of {profile.engine}: {profile.target} {profile.precision}, a group of {profile.request.group}"
    parts = [title, machine_line(profile), *total_lines(profile)]
    for table in (kind_table(profile), layer_table(profile)):
        parts += [f"## {table.title}", markdown_table(table), table.note]
    return "\n\n".join(parts) + "\n"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("gconet profile", "Show where a bundle's time goes, layer by layer.", EPILOG)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE, metavar="B", help="default: %(default)s")
    parser.add_argument("--group", type=positive, default=DEFAULT_GROUP, metavar="N",
                        help="photos in the group (default: %(default)s)")  # fmt: skip
    parser.add_argument("--images", type=Path, metavar="DIR", help="photos of one object; of several groups the "
                        "largest (default: the example photos)")  # fmt: skip
    parser.add_argument("--rounds", type=positive, default=20, metavar="N",
                        help="samples of each layer (default: %(default)s)")  # fmt: skip
    parser.add_argument("--warm-up", type=positive, default=WARM_UP_AT_MOST, metavar="N", help="rounds before them at "
                        "most; fewer if medians settle earlier (default: %(default)s)")  # fmt: skip
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: the engine's choice)")
    parser.add_argument("--top", type=positive, default=20, metavar="N",
                        help="slowest layers to print (default: %(default)s); files have all")  # fmt: skip
    parser.add_argument("--no-roofline", action="store_true", help="do not measure the machine's best rates")
    parser.add_argument("--json", type=Path, metavar="F", help="write every layer with raw samples, and the machine")
    parser.add_argument("--markdown", type=Path, metavar="F", help="write every layer as tables")
    add_signature_argument(parser)
    return parser.parse_args(arguments)
