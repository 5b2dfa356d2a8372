"""What INT8 does to the maps of real groups: the measure of the sensitivity sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gconet.bench.metrics import Grey
from gconet.bench.parity_accuracy import TruthGroup, find_truth_groups
from gconet.bench.reference import eager_maps
from gconet.bench.toolboxes import eval_co_sod
from gconet.runtime.photos import find_groups, read_photo
from gconet.runtime.preprocess import FloatArray, Preprocessing, resize_map, to_input
from gconet.train.model import GCoNet

Infer = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Judgement:
    """How far maps are from the eager FP32 network's.

    Attributes
    ----------
    mask_iou, worst_iou : mean and smallest intersection over union of the masks at 0.5, group by group.
    mean_abs : of the difference of maps in [0, 1].
    delta_s, delta_mae : change of the scores by eval-co-sod; None where there are no truths.
    """

    mask_iou: float
    worst_iou: float
    mean_abs: float
    delta_s: float | None = None
    delta_mae: float | None = None


@dataclass(frozen=True)
class JudgedGroup:
    """Network inputs (N, 3, S, S) of a group, and N truths, each (H, W) uint8; none where there are no truths."""

    images: FloatArray
    truths: Sequence[Grey]


def read_judged_groups(
    images: Path, truths: Path | None, photos: int, preprocessing: Preprocessing
) -> list[JudgedGroup]:
    """The first `photos` photos of every group below a folder.

    Raises
    ------
    PhotoError
        If a folder is missing or holds no picture, or a picture cannot be read.
    UsageError
        If a photo has no truth.
    """
    if truths is None:
        groups = [TruthGroup(group.photos, ()) for group in find_groups([images])]
    else:
        groups = find_truth_groups(images, truths)
    return [
        JudgedGroup(
            to_input([read_photo(path) for path in group.photos[:photos]], preprocessing),
            [_read_grey(path) for path in group.truths[:photos]],
        )
        for group in groups
    ]


class Judge:
    """Compares engines with the eager network on the same groups, whose maps are made once."""

    def __init__(self, model: GCoNet, groups: Sequence[JudgedGroup]) -> None:
        self.groups = groups
        self._reference = [eager_maps(model, group.images) for group in groups]
        self._scores = self._score(self._reference)

    def judge(self, infer: Infer) -> Judgement:
        """Run `infer`, (N, 3, S, S) to (N, 1, S, S), on every group and compare."""
        maps = [infer(group.images) for group in self.groups]
        ious = [_mask_iou(found, wanted) for found, wanted in zip(maps, self._reference, strict=True)]
        differences = np.concatenate(
            [np.abs(found - wanted).ravel() for found, wanted in zip(maps, self._reference, strict=True)]
        )
        judgement = Judgement(float(np.mean(ious)), min(ious), float(differences.mean()))
        scores = self._score(maps)
        if scores is None or self._scores is None:
            return judgement
        deltas = (found - wanted for found, wanted in zip(scores, self._scores, strict=True))
        return Judgement(judgement.mask_iou, judgement.worst_iou, judgement.mean_abs, *deltas)

    def _score(self, maps: Sequence[FloatArray]) -> tuple[float, float] | None:
        """Mean S and MAE over all photos, of maps rounded to 8 bits at the size of their truths."""
        figures = [
            eval_co_sod(np.rint(resize_map(saliency[0], *truth.shape) * 255).clip(0, 255).astype(np.uint8), truth)
            for group, found in zip(self.groups, maps, strict=True)
            for saliency, truth in zip(found, group.truths, strict=False)
        ]
        if not figures:
            return None
        return float(np.mean([figure.s for figure in figures])), float(np.mean([figure.mae for figure in figures]))


def _mask_iou(found: FloatArray, wanted: FloatArray) -> float:
    masks = found >= 0.5, wanted >= 0.5
    union = np.count_nonzero(masks[0] | masks[1])
    return float(np.count_nonzero(masks[0] & masks[1]) / union) if union else 1.0


def _read_grey(path: Path) -> Grey:
    return np.asarray(Image.fromarray(read_photo(path)).convert("L"))
