"""Score a network on labelled groups, as `gconet detect` followed by `gconet evaluate` would."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gconet.bench.reference import eager_maps
from gconet.bench.toolboxes import Scores, eval_co_sod, mean_figures, scores
from gconet.runtime.preprocess import Preprocessing, resize_map, to_bytes, to_input
from gconet.train.groups import LabelledGroup, read_pictures
from gconet.train.model import GCoNet


def network_scores(model: GCoNet, groups: Sequence[LabelledGroup], preprocessing: Preprocessing) -> Scores:
    """Scores by eval-co-sod over all photos, each group in one piece, maps at the photos' own sizes.

    Parameters
    ----------
    model : on the CPU, in eval mode.
    groups : at least one.
    """
    figures = []
    for group in groups:
        photos, masks = zip(*(map(np.asarray, read_pictures(sample)) for sample in group.samples), strict=True)
        maps = eager_maps(model, to_input(photos, preprocessing))[:, 0]
        for saliency, mask in zip(maps, masks, strict=True):
            figures.append(eval_co_sod(to_bytes(resize_map(saliency, *mask.shape)), mask))
    return scores(mean_figures(figures))
