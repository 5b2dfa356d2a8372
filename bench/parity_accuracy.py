"""Metric parity: what an engine's maps score on labelled groups, against what the eager network's maps score.

Scores are eval-co-sod's, of maps at the truth's size in 8 bits. Here maps are rounded to 8 bits, while `gconet detect`
cuts off, as the authors do. Cutting off makes a map of 1 white and one of 0.9999999 not, which is where a sure network
has most of its object; a last bit, different from one sigmoid to another, then moves max-E by 0.005 and says nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from gconet.bench.metrics import Grey
from gconet.bench.reference import eager_maps
from gconet.bench.tolerances import MetricTolerance
from gconet.bench.toolboxes import Figures, Scores, eval_co_sod, mean_figures, scores
from gconet.runtime.detector import Detector
from gconet.runtime.errors import UsageError
from gconet.runtime.large_groups import infer_group
from gconet.runtime.photos import find_groups, read_photo
from gconet.runtime.preprocess import FloatArray, Preprocessing, resize_map, to_input
from gconet.train.model import GCoNet

JUDGED = {"mae": "MAE", "max_f": "max-F", "max_e": "max-E", "s": "S"}  # fields of Scores and MetricTolerance
NAMED_AT_MOST = 5


@dataclass(frozen=True)
class TruthGroup:
    """Photos that share an object, and a picture for each that is white where the object is."""

    photos: tuple[Path, ...]
    truths: tuple[Path, ...]


@dataclass(frozen=True)
class MetricParity:
    """Scores of the eager network and of an engine by eval-co-sod, over `photos` photos in `groups` groups.

    Attributes
    ----------
    deltas : engine minus eager, by name of the score.
    passed : all within the limits, and no map with a NaN or an infinity.
    """

    reference: Scores
    engine: Scores
    groups: int
    photos: int
    deltas: dict[str, float]
    passed: bool


def find_truth_groups(images: Path, truths: Path) -> list[TruthGroup]:
    """Groups of photos below a folder, with their truths: the same tree, names without suffix.

    Raises
    ------
    PhotoError
        If a folder is missing or holds no picture.
    UsageError
        If a photo has no truth.
    """
    by_name = {group.folder / path.stem: path for group in find_groups([truths]) for path in group.photos}
    groups, missing = [], []
    for group in find_groups([images]):
        names = [group.folder / photo.stem for photo in group.photos]
        missing += [name.as_posix() for name in names if name not in by_name]
        groups.append(TruthGroup(group.photos, tuple(by_name[name] for name in names if name in by_name)))
    if missing:
        more = f" and {len(missing) - NAMED_AT_MOST} more" * (len(missing) > NAMED_AT_MOST)
        raise UsageError(
            f"--gt {truths} has no picture for {', '.join(missing[:NAMED_AT_MOST])}{more}: it must mirror {images}"
        )
    return groups


def eager_figures(
    model: GCoNet, preprocessing: Preprocessing, groups: Sequence[TruthGroup], progress: tqdm[Any]
) -> list[Figures]:
    """What the eager network's maps score, photo by photo; each group in one piece, one progress step a photo.

    Raises
    ------
    PhotoError
        If a picture cannot be read.
    """

    def infer(images: FloatArray) -> FloatArray:
        return eager_maps(model, images)

    return [figures for group in groups for figures in _score(infer, preprocessing, group, progress)]


def measure_metric_parity(
    detector: Detector,
    reference: Sequence[Figures],
    groups: Sequence[TruthGroup],
    limits: MetricTolerance,
    progress: tqdm[Any],
) -> MetricParity:
    """Score the maps of an engine, each group in one piece, against those of `eager_figures`; one step a photo.

    Raises
    ------
    PhotoError
        If a picture cannot be read.
    UsageError, TargetError
        If a group is larger than the engine, or memory, takes.
    """
    for group in groups:
        detector.check_count(len(group.photos))
    finite = True

    def infer(images: FloatArray) -> FloatArray:
        nonlocal finite
        maps = infer_group(detector.session, detector.bundle.manifest, images)
        finite = finite and bool(np.isfinite(maps).all())
        return maps

    preprocessing = detector.bundle.manifest.preprocessing
    engine = [figures for group in groups for figures in _score(infer, preprocessing, group, progress)]
    judged = judge(scores(mean_figures(reference)), scores(mean_figures(engine)), limits, len(groups), len(engine))
    return judged if finite else dataclasses.replace(judged, passed=False)


def judge(reference: Scores, engine: Scores, limits: MetricTolerance, groups: int, photos: int) -> MetricParity:
    """Compare the scores of both with the limits."""
    deltas = {name: getattr(engine, name) - getattr(reference, name) for name in JUDGED}
    passed = all(abs(delta) <= getattr(limits, name) for name, delta in deltas.items())
    return MetricParity(reference, engine, groups, photos, deltas, passed)


def metric_document(parity: MetricParity, limits: MetricTolerance) -> dict[str, Any]:
    """What the JSON report says."""
    convention = {"toolbox": "eval-co-sod", "grey_values": "rounded"}
    return {**convention, **dataclasses.asdict(parity), "tolerance": dataclasses.asdict(limits)}


def metric_table(parity: MetricParity, limits: MetricTolerance) -> str:
    """A table for people."""
    lines = [f"{parity.photos} photos in {parity.groups} groups, eval-co-sod on rounded maps",
             f"{'':>6} {'eager':>8} {'engine':>8} {'Δ':>9} {'limit':>8}"]  # fmt: skip
    for name, title in JUDGED.items():
        delta, limit = parity.deltas[name], getattr(limits, name)
        lines.append(
            f"{title:>6} {getattr(parity.reference, name):>8.4f} {getattr(parity.engine, name):>8.4f} "
            f"{delta:>+9.5f} {limit:>8.4f}{'' if abs(delta) <= limit else '  outside the tolerance'}"
        )
    return "\n".join(lines)


def _score(
    infer: Callable[[FloatArray], FloatArray], preprocessing: Preprocessing, group: TruthGroup, progress: tqdm[Any]
) -> Iterator[Figures]:
    photos = [read_photo(path) for path in group.photos]
    for photo, path, saliency in zip(photos, group.truths, infer(to_input(photos, preprocessing)), strict=True):
        truth = _read_truth(path)
        yield eval_co_sod(_in_grey(saliency[0], photo.shape[:2], truth.shape), truth)
        progress.update()


def _read_truth(path: Path) -> Grey:
    return np.asarray(Image.fromarray(read_photo(path)).convert("L"))


def _in_grey(saliency: FloatArray, photo: tuple[int, int], truth: tuple[int, int]) -> Grey:
    """A map (S, S) in 8 bits, enlarged to its photo's size and, if that is another, brought to its truth's."""
    grey = np.rint(resize_map(np.nan_to_num(saliency, posinf=1, neginf=0), *photo).clip(0, 1) * 255).astype(np.uint8)
    return grey if photo == truth else np.asarray(Image.fromarray(grey).resize(truth[::-1], Image.Resampling.BILINEAR))
