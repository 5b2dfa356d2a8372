"""Precision-recall and F-measure curves as pictures that a grey printer leaves readable; importing needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gconet.bench.metrics import FloatArray
from gconet.bench.toolboxes import Figures
from gconet.runtime.atomic import replacing


def write_plots(
    folder: Path, title: str, figures: Figures, groups: Sequence[Figures], thresholds: FloatArray
) -> list[Path]:
    """Write `precision-recall.png` and `f-measure.png` and return their paths.

    Parameters
    ----------
    figures : means over the data set, drawn in black.
    groups : means over each group, thin and grey; may be empty.
    thresholds : (T,) of the curves.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    best = int(figures.f.argmax())

    precision_recall, axes = _canvas(title, "recall", "precision")
    for index, group in enumerate(groups):
        _group_line(axes, group.recall, group.precision, "single groups" if index == 0 else None)
    axes.plot(figures.recall, figures.precision, "k-", linewidth=2, label="all maps")
    axes.plot(figures.recall[best], figures.precision[best], "ko", label=f"threshold {thresholds[best]:.2f} (max-F)")
    axes.legend(loc="lower left")

    f_measure, axes = _canvas(title, "threshold", "measure")
    for index, group in enumerate(groups):
        _group_line(axes, thresholds, group.f, "F of single groups" if index == 0 else None)
    for label, curve, style in (("F", figures.f, "-"), ("E", figures.e, "--")):
        peak = int(curve.argmax())
        axes.plot(thresholds, curve, f"k{style}", linewidth=2, label=f"{label}: max {curve[peak]:.3f}")
        axes.plot(thresholds[peak], curve[peak], "ko")
    axes.legend(loc="lower center")

    paths = []
    for name, picture in (("precision-recall.png", precision_recall), ("f-measure.png", f_measure)):
        with replacing(folder / name) as temporary:
            picture.savefig(temporary, format="png")
        paths.append(folder / name)
    return paths


def _canvas(title: str, horizontal: str, vertical: str) -> tuple[Figure, Axes]:
    picture = Figure(figsize=(6, 4.5), dpi=150, layout="constrained")  # not pyplot: no window, nothing global
    axes = picture.add_subplot(title=title, xlabel=horizontal, ylabel=vertical, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    return picture, axes


def _group_line(axes: Axes, horizontal: FloatArray, vertical: FloatArray, label: str | None) -> None:
    axes.plot(horizontal, vertical, color="0.65", linewidth=0.7, label=label)
