"""`gconet audit`: what a checkpoint becomes in half precision, and how it does in that arithmetic on this CPU."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gconet.bench.environment import describe_environment
from gconet.bench.parity import parity_table
from gconet.bench.photo_groups import extend_photos, read_group
from gconet.bench.tolerances import tolerance
from gconet.export.audit import GraphAudit, audit_graph
from gconet.export.calibration import read_calibration
from gconet.export.equalise import DomainRange
from gconet.export.inference import InferenceNetwork
from gconet.export.precision import ISLANDS, TYPES, islands, lower
from gconet.export.to_onnx import export_network
from gconet.export.typed_parity import TARGET, measure_typed_parity
from gconet.export.wide_accumulation import accumulate_widely
from gconet.runtime.command_line import EXIT_CHECK_FAILED, EXIT_DONE, Parser, positive, write_json
from gconet.runtime.preprocess import check_size, to_input
from gconet.train.checkpoint import SHIPPED, read_checkpoint

EPILOG = """\
The network is equalised on the calibration photos by powers of two, cast but for its float32 islands, exported, and run
in that arithmetic on this CPU, on the photos of --images, against the eager float32 network.

examples:
  gconet audit                                        the demo weights in fp16, calibrated on the example photos
  gconet audit --checkpoint gconet.safetensors --calibration groups/train --images groups/test --json audit.json
  gconet audit --exact                                every operation by PyTorch's own half kernels; a minute a photo

Exit codes: 0 done, 1 outside the tolerance, 2 bad input."""


def main(arguments: Sequence[str]) -> int:
    """Print the audit; exit code 1 if the typed network is outside its tolerance."""
    parser = Parser("gconet audit", "Show what half precision does to a checkpoint, layer by layer.", EPILOG)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, metavar="F", help="weights (default: the demo)")
    parser.add_argument("--precision", choices=list(TYPES), default="fp16", help="half type (default: %(default)s)")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="photos in groups (default: the examples)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="photos to run; of several groups the "
                        "largest (default: the examples)")  # fmt: skip
    parser.add_argument("--groups", type=positive, nargs="+", default=[1, 2, 5], metavar="N",
                        help="group sizes to run (default: 1 2 5)")  # fmt: skip
    parser.add_argument("--size", type=_size, help="side of the input (default: the checkpoint's)")
    parser.add_argument("--exact", action="store_true", help="PyTorch's own half kernels; slow on most CPUs")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to this file")
    options = parser.parse_args(arguments)

    checkpoint = read_checkpoint(options.checkpoint)
    preprocessing = checkpoint.info.preprocessing
    if options.size:
        preprocessing = dataclasses.replace(preprocessing, size=options.size)
    groups = read_calibration(options.calibration, preprocessing)
    inputs = to_input(extend_photos(read_group(options.images), max(options.groups)), preprocessing)
    model = checkpoint.network()
    network = InferenceNetwork(copy.deepcopy(model))
    found = lower(network, options.precision, groups)
    audit = audit_graph(export_network(network, preprocessing.size))
    kept = islands(TYPES[options.precision], found)
    print("\n".join([*head_room_lines(found), "", *audit_lines(audit), "", *island_lines(kept), ""]))

    if not options.exact:
        accumulate_widely(network)
    rows = measure_typed_parity(model, network, options.precision, inputs, sorted(set(options.groups)))
    how = "PyTorch's own kernels" if options.exact else "convolutions summed in float32 and rounded once"
    print(f"{options.precision} on this CPU ({how}) against eager float32:\n{parity_table(rows)}")
    passed = all(row.passed for row in rows)
    if options.json:
        document: dict[str, Any] = {
            "checkpoint": checkpoint.info.provenance,
            "precision": options.precision,
            "size": preprocessing.size,
            "arithmetic": how,
            "convolution_operations": dict(audit.operations),
            "share": audit.share(options.precision),
            "casts": list(audit.casts),
            "islands": kept,
            "ranges": [_range_record(entry) for entry in found],
            "passed": passed,
            "tolerance": dataclasses.asdict(tolerance(TARGET, options.precision)),
            "rows": [dataclasses.asdict(row) for row in rows],
            "environment": describe_environment(),
        }
        write_json(options.json, document)
    return EXIT_DONE if passed else EXIT_CHECK_FAILED


def head_room_lines(found: Sequence[DomainRange]) -> list[str]:
    """A table of the largest activation of each domain, its factor, and the head-room left in half precision."""
    lines = [f"{'layers':<58} {'largest':>9} {'factor':>9} {'head-room':>10}"]
    for entry in found:
        layers = " + ".join(entry.layers)
        lines.append(
            f"{layers:<58} {entry.largest:>9.4g} {f'2^{math.log2(entry.factor):.0f}':>9} {entry.head_room:>9.0f}×"
        )
    return lines


def audit_lines(audit: GraphAudit) -> list[str]:
    """Shares of the convolution operations, and every cast."""
    total = sum(audit.operations.values())
    shares = (f"{name} {count / total:.2%}" for name, count in audit.operations.items())
    return [f"convolutions, {total / 1e9:.1f} GFLOP a photo: {', '.join(shares)}", *(f"cast  {c}" for c in audit.casts)]


def island_lines(kept: Sequence[str]) -> list[str]:
    """Each island that this network has, with its reason."""
    return [
        f"float32  {', '.join(module for module in island.modules if module in kept)}: {island.reason}"
        for island in ISLANDS
        if any(module in kept for module in island.modules)
    ]


def _range_record(entry: DomainRange) -> dict[str, Any]:
    room = entry.head_room if math.isfinite(entry.head_room) else None
    return {"layers": list(entry.layers), "largest": entry.largest, "factor": entry.factor, "head_room": room}


def _size(text: str) -> int:
    try:
        return check_size(int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
