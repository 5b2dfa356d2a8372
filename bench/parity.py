"""Compare a bundle with the eager FP32 network on photos: `python bench/parity.py --bundle build/gconet.gconet`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    from gconet.runtime.cli import run_script

    run_script("parity")

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gconet.bench.environment import describe_environment
from gconet.bench.reference import eager_maps, extend_photos, read_photos, reference_network
from gconet.bench.tolerances import Tolerance, tolerance
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import EXIT_CHECK_FAILED, EXIT_DONE, Parser, write_json
from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import FloatArray, Photo, to_input
from gconet.runtime.session import Session, open_session
from gconet.train.model import GCoNet

GROUP_SIZES = (1, 2, 5, 16)  # and the bundle's maximum


@dataclass(frozen=True)
class ParityRow:
    """How far an engine is from the reference, for one group of `group` photos.

    Attributes
    ----------
    max_abs, mean_abs : of the difference of maps in [0, 1].
    cosine : between the maps as vectors.
    mask_iou : intersection over union of the masks at 0.5, over all photos of the group.
    finite : no NaN, no infinity.
    passed : within the tolerance.
    """

    group: int
    max_abs: float
    mean_abs: float
    cosine: float
    mask_iou: float
    finite: bool
    passed: bool


def compare(reference: FloatArray, maps: FloatArray, limits: Tolerance) -> ParityRow:
    """Statistics of two sets of maps (N, 1, S, S), judged by `limits`."""
    finite = bool(np.isfinite(maps).all())
    difference = np.abs(maps.astype(np.float64) - reference)
    masks = maps >= 0.5, reference >= 0.5
    union = np.count_nonzero(masks[0] | masks[1])
    norms = float(np.linalg.norm(maps) * np.linalg.norm(reference))
    largest, mean = float(difference.max()), float(difference.mean())
    iou = float(np.count_nonzero(masks[0] & masks[1]) / union) if union else 1.0
    passed = (
        finite
        and (limits.max_abs is None or largest <= limits.max_abs)
        and mean <= limits.mean_abs
        and iou >= limits.mask_iou
    )
    cosine = float(np.vdot(maps, reference)) / norms if norms else float(norms == 0)
    return ParityRow(len(maps), largest, mean, cosine, iou, finite, passed)


def measure_parity(
    session: Session,
    manifest: Manifest,
    model: GCoNet,
    photos: Sequence[Photo],
    progress: Callable[[str], None],
) -> list[ParityRow]:
    """Compare for groups of 1, 2, 5, 16 and the bundle's maximum, as far as it goes."""
    limits = tolerance(manifest.target, manifest.precision)
    sizes = sorted({*(size for size in GROUP_SIZES if size <= manifest.max_group), manifest.max_group})
    inputs = to_input(extend_photos(photos, sizes[-1]), manifest.preprocessing)
    rows = []
    for size in sizes:
        progress(f"parity: group of {size}")
        images = inputs[:size]
        rows.append(compare(eager_maps(model, images), session.infer({"images": images})["maps"], limits))
    return rows


def parity_document(rows: Sequence[ParityRow], limits: Tolerance) -> dict[str, Any]:
    """What the manifest and the JSON report say."""
    return {
        "passed": all(row.passed for row in rows),
        "reference": "eager PyTorch, fp32",
        "tolerance": dataclasses.asdict(limits),
        "rows": [dataclasses.asdict(row) for row in rows],
    }


def parity_table(rows: Sequence[ParityRow]) -> str:
    """A table for people."""
    lines = [f"{'group':>7} {'max |Δ|':>9} {'mean |Δ|':>9} {'cosine':>10} {'mask IoU':>9}"]
    lines += [
        f"{row.group:>7} {row.max_abs:>9.1e} {row.mean_abs:>9.1e} {row.cosine:>10.7f} {row.mask_iou:>9.5f}"
        f"{'' if row.passed else '  outside the tolerance'}"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 if a group size is outside the tolerance of the bundle's target and precision."""
    parser = Parser("gconet parity", "Compare a bundle with the eager FP32 network it was built from, on photos.")
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to check (default: %(default)s)")
    parser.add_argument("--checkpoint", help="what the bundle was built from (default: the weights that ship)")
    parser.add_argument("--images", help="folder of photos (default: the example photos)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)

    bundle = open_bundle(options.bundle)
    manifest = bundle.manifest
    session = open_session(bundle, "auto", None)
    model = reference_network(manifest, options.checkpoint)
    photos = read_photos(options.images)
    rows = measure_parity(session, manifest, model, photos, lambda step: print(step, file=sys.stderr))
    limits = tolerance(manifest.target, manifest.precision)
    document = parity_document(rows, limits)
    print(f"{bundle.folder}: {manifest.target} {manifest.precision} against eager PyTorch fp32")
    print(parity_table(rows))
    if options.json:
        engine = {
            "engine": bundle.folder.name,
            "target": manifest.target,
            "precision": manifest.precision,
            "checkpoint": manifest.checkpoint,
            "images": Path(options.images).name if options.images else "the example photos",
        }
        write_json(options.json, {**engine, **document, "environment": describe_environment()})
    return EXIT_DONE if document["passed"] else EXIT_CHECK_FAILED
