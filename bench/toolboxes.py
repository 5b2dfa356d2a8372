"""The two conventions that published figures follow, side by side: what each makes of one map, and of a data set.

| | `eval-co-sod` (the tables of CoSOD papers) | `pysodmetrics` (the library) |
| --- | --- | --- |
| thresholds | 255, `linspace(0, 1 - 1e-10, 255)`, at or above | 256 |
| map stretched to its range | for F, E, S; not for MAE | for all |
| truth | grey value / 255 in MAE, F, E; from 128 on in S | above 128 everywhere |
| E on an empty or full truth | no special case | special case |
| map of another size | resized, bilinear | an error |

In both, curves are averaged over all maps of a data set before a maximum is taken: one threshold serves all photos.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gconet.bench import metrics
from gconet.bench.metrics import THRESHOLDS, FloatArray, Grey
from gconet.engines.installed import import_or_explain

ACCURACY_EXTRA = "'gconet-deploy[accuracy]'"  # what pip installs the optional libraries by


@dataclass(frozen=True)
class Figures:
    """What one map scores, or the mean over many; curves are (T,) float64 over rising thresholds."""

    mae: float
    s: float
    precision: FloatArray
    recall: FloatArray
    false_positive_rate: FloatArray
    f: FloatArray
    e: FloatArray


@dataclass(frozen=True)
class Scores:
    """A row of a table, in [0, 1] (E up to H·W / (H·W − 1)); `mae` is better when smaller, the others when larger."""

    mae: float
    max_f: float
    mean_f: float
    max_e: float
    mean_e: float
    s: float
    ap: float
    auc: float


@dataclass(frozen=True)
class Toolbox:
    """A convention: `measure(map, truth)` of (H, W) uint8 arrays of one size, the thresholds (T,) of its curves, and
    whether it resizes maps of another size than the truth's."""

    measure: Callable[[Grey, Grey], Figures]
    thresholds: FloatArray
    resizes: bool


def eval_co_sod(saliency: Grey, truth: Grey) -> Figures:
    """Figures of one map (H, W) against its truth (H, W), as eval-co-sod has them."""
    counts = metrics.count_pixels(saliency, truth)
    precision, recall = metrics.precision(counts), metrics.recall(counts)
    return Figures(
        mae=metrics.mean_absolute_error(saliency / 255, truth / 255),
        s=metrics.s_measure(metrics.stretched_values(saliency)[saliency], truth >= 128),
        precision=precision,
        recall=recall,
        false_positive_rate=metrics.false_positive_rate(counts),
        f=metrics.f_measure(precision, recall),
        e=metrics.e_measure(counts),
    )


def mean_figures(figures: Sequence[Figures]) -> Figures:
    """The mean over maps, curves point by point; at least one map."""
    names = [field.name for field in dataclasses.fields(Figures)]
    return Figures(**{name: np.mean([getattr(one, name) for one in figures], axis=0) for name in names})


def scores(figures: Figures) -> Scores:
    """Maxima, means and areas of curves; for a data set pass its `mean_figures`."""
    return Scores(
        mae=float(figures.mae),
        max_f=float(figures.f.max()),
        mean_f=float(figures.f.mean()),
        max_e=float(figures.e.max()),
        mean_e=float(figures.e.mean()),
        s=float(figures.s),
        ap=metrics.average_precision(figures.precision, figures.recall),
        auc=metrics.area_under_roc(figures.recall, figures.false_positive_rate),
    )


def _load_eval_co_sod() -> Toolbox:
    return Toolbox(eval_co_sod, THRESHOLDS, resizes=True)


def _load_pysodmetrics() -> Toolbox:
    import_or_explain("py_sod_metrics", (ACCURACY_EXTRA,))
    from gconet.bench import pysodmetrics_adapter as adapter  # only here, so that eval-co-sod needs numpy alone

    return Toolbox(adapter.measure, adapter.THRESHOLDS, resizes=False)


TOOLBOXES: Mapping[str, Callable[[], Toolbox]] = {"eval-co-sod": _load_eval_co_sod, "pysodmetrics": _load_pysodmetrics}


def load_toolbox(name: str) -> Toolbox:
    """A toolbox of TOOLBOXES, ready to measure; raises TargetError if its library is not installed."""
    return TOOLBOXES[name]()
