"""Figures that others have published, to stand beside ours: all by the convention of `eval-co-sod`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One model on one data set, all in [0, 1]; mean-F, mean-E, AP and AUC are not reported in these tables."""

    model: str
    dataset: str
    max_e: float
    s: float
    max_f: float
    mae: float


SOURCES: Mapping[str, str] = {
    "GICD": "Zhang, Jin, Xu, Cheng. Gradient-Induced Co-Saliency Detection. ECCV 2020.",
    "GCoNet": "Fan et al. Group Collaborative Learning for Co-Salient Object Detection. CVPR 2021. "
              "Trained on DUTS_class.",
    "GCoNet+": "Zheng et al. GCoNet+: A Stronger Group Collaborative Co-Salient Object Detector. TPAMI 2023. "
               "Trained on DUTS_class and COCO-SEG.",
    "MCCL": "Zheng et al. Memory-aided Contrastive Consensus Learning for Co-salient Object Detection. AAAI 2023.",
    "CONDA": "Li et al. CONDA: Condensed Deep Association Learning for Co-Salient Object Detection. ECCV 2024.",
}  # fmt: skip

PUBLISHED = (  # model, data set, max-E, S, max-F, MAE
    Published("GICD", "CoCA", 0.715, 0.658, 0.513, 0.126),
    Published("GCoNet", "CoCA", 0.760, 0.673, 0.544, 0.105),
    Published("GCoNet+", "CoCA", 0.814, 0.738, 0.637, 0.081),
    Published("MCCL", "CoCA", 0.796, 0.714, 0.590, 0.103),
    Published("CONDA", "CoCA", 0.839, 0.763, 0.685, 0.089),
    Published("GICD", "CoSOD3k", 0.848, 0.797, 0.770, 0.079),
    Published("GCoNet", "CoSOD3k", 0.860, 0.802, 0.777, 0.071),
    Published("GCoNet+", "CoSOD3k", 0.901, 0.843, 0.834, 0.062),
    Published("MCCL", "CoSOD3k", 0.903, 0.858, 0.837, 0.061),
    Published("CONDA", "CoSOD3k", 0.911, 0.862, 0.853, 0.056),
    Published("GICD", "Cosal2015", 0.887, 0.844, 0.844, 0.071),
    Published("GCoNet", "Cosal2015", 0.887, 0.845, 0.847, 0.068),
    Published("GCoNet+", "Cosal2015", 0.924, 0.881, 0.891, 0.056),
    Published("MCCL", "Cosal2015", 0.927, 0.890, 0.891, 0.051),
    Published("CONDA", "Cosal2015", 0.944, 0.900, 0.908, 0.045),
)


def published_on(dataset: str) -> tuple[Published, ...]:
    """The rows of a data set, named in any case; none if it is not one of those above."""
    return tuple(row for row in PUBLISHED if row.dataset.casefold() == dataset.casefold())
