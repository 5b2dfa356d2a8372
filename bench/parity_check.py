"""Everything `gconet parity` finds out about one bundle: statistics, scores, layers; and its document for JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gconet.bench.bisect_layers import Bisection, bisect_bundle
from gconet.bench.bisect_report import jump_verdict, scan_verdict
from gconet.bench.bisect_runners import why_not_readable
from gconet.bench.parity_accuracy import MetricParity, TruthGroup, measure_metric_parity, metric_document
from gconet.bench.parity_groups import ComparedPhoto, EagerReference, compare_groups
from gconet.bench.parity_statistics import ParityRow, json_numbers, parity_document
from gconet.bench.tolerances import MetricTolerance, Tolerance, metric_tolerance, tolerance
from gconet.runtime.bundle import Bundle
from gconet.runtime.detector import Detector
from gconet.runtime.session import Session

USUAL_LAYER_GROUP, LARGEST_LAYER_GROUP = 2, 5  # photos whose layers are looked at; 1 GB of activations for five


@dataclass(frozen=True)
class ParityRequest:
    """What to find out besides the statistics.

    Attributes
    ----------
    truth_groups : photos with truths to score on; none to leave scores out.
    bisect, scan : look for the first layer whose error jumps, or with a NaN or an infinity.
    """

    truth_groups: Sequence[TruthGroup] = ()
    bisect: bool = False
    scan: bool = False


@dataclass(frozen=True)
class BundleParity:
    """What was found out of one bundle; `metrics` and `layers` are None where they were not asked for.

    Attributes
    ----------
    worst : the photo whose map differs most on average, over all group sizes.
    layers_missing : why there are none though they were asked for.
    scanned, bisected : which of the two `layers` was made for.
    """

    bundle: Bundle
    limits: Tolerance
    metric_limits: MetricTolerance
    rows: Sequence[ParityRow]
    worst: ComparedPhoto
    metrics: MetricParity | None
    layers: Bisection | None
    layers_missing: str | None
    scanned: bool
    bisected: bool

    @property
    def name(self) -> str:
        """The bundle's folder."""
        return self.bundle.folder.name

    @property
    def passed(self) -> bool:
        """Statistics and scores within their limits, and nothing that is not finite where that was looked for."""
        return (
            all(row.passed for row in self.rows)
            and (self.metrics is None or self.metrics.passed)
            and not (self.layers is not None and self.scanned and self.layers.first_not_finite)
        )


def check_bundle(
    bundle: Bundle, session: Session, reference: EagerReference, request: ParityRequest, progress: Callable[[str], None]
) -> BundleParity:
    """Measure one bundle.

    Raises
    ------
    UsageError, TargetError, PhotoError, BundleError
        As raised by `measure_metric_parity` and `bisect_bundle`.
    """
    manifest = bundle.manifest
    rows, photos = zip(*compare_groups(session, manifest, reference, progress), strict=True)
    limits, metric_limits = tolerance(manifest.target, manifest.precision), metric_tolerance(manifest.precision)
    metrics = _metric_parity(Detector(bundle, session), reference, request.truth_groups, metric_limits)
    layers = None
    layers_missing = why_not_readable(bundle) if request.bisect or request.scan else None
    if (request.bisect or request.scan) and not layers_missing:
        size = _layer_group(rows)
        progress(f"layers: group of {size}")
        key = manifest.preprocessing, size
        exported = reference.layers(manifest.preprocessing)
        layers = bisect_bundle(bundle, exported, reference.inputs(*key), reference.maps(*key))
    worst = max(photos, key=lambda photo: photo.mean_abs)
    return BundleParity(
        bundle=bundle,
        limits=limits,
        metric_limits=metric_limits,
        rows=rows,
        worst=worst,
        metrics=metrics,
        layers=layers,
        layers_missing=layers_missing,
        scanned=request.scan,
        bisected=request.bisect,
    )


def bundle_document(parity: BundleParity, images: Path | None) -> dict[str, Any]:
    """The JSON report of one bundle."""
    manifest = parity.bundle.manifest
    document = {
        "engine": parity.name,
        "target": manifest.target,
        "precision": manifest.precision,
        "checkpoint": manifest.checkpoint,
        "images": images.name if images else "the example photos",
        **parity_document(parity.rows, parity.limits),
        "passed": parity.passed,
    }
    if parity.metrics:
        document["metrics"] = metric_document(parity.metrics, parity.metric_limits)
    if parity.layers and parity.scanned:
        document["scan"] = {"verdict": scan_verdict(parity.layers), "passed": not parity.layers.first_not_finite}
    if parity.layers_missing:
        document["layers"] = {"not_measured": parity.layers_missing}
    if parity.layers:
        document["layers"] = _layers_document(parity.layers, parity.bisected)
    return document


def _metric_parity(
    detector: Detector, reference: EagerReference, groups: Sequence[TruthGroup], limits: MetricTolerance
) -> MetricParity | None:
    if not groups:
        return None
    count = sum(len(group.photos) for group in groups)
    figures = reference.figures(detector.bundle.manifest.preprocessing, groups)
    with tqdm(total=count, desc=f"scores of {detector.bundle.folder.name}", unit="photo", disable=None) as bar:
        return measure_metric_parity(detector, figures, groups, limits, bar)


def _layers_document(layers: Bisection, bisected: bool) -> Mapping[str, Any]:
    jump, bad = layers.first_jump, layers.first_not_finite
    return {
        **({"verdict": jump_verdict(layers), "first_jump": jump.layer if jump else None} if bisected else {}),
        "first_not_finite": bad.layer if bad else None,
        "group": layers.group,
        "exported_graph_max_abs": layers.graph_max_abs,
        "rounding": dataclasses.asdict(layers.rounding),
        "not_compared": list(layers.not_compared),
        "rows": [json_numbers(row) for row in layers.rows],
    }


def _layer_group(rows: Sequence[ParityRow]) -> int:
    """The smallest group outside the tolerance, if its activations fit into memory; else a pair, or what there is."""
    sizes = [row.group for row in rows]
    failed = [row.group for row in rows if not row.passed and row.group <= LARGEST_LAYER_GROUP]
    return failed[0] if failed else min(USUAL_LAYER_GROUP, sizes[-1])
