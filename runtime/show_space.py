"""Consensus vectors of a tree of groups in the plane, as in the paper's figure 1: t-SNE with photos as markers."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.command_line import in_one_line
from gconet.runtime.extras import needing
from gconet.runtime.group_vectors import unit
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.show_group import GroupPoints

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_POINTS = 4  # fewer have no neighbourhoods to keep
LARGEST_PERPLEXITY = 30.0
SEED = 0
DOTS_PER_INCH = 110
LINES = ("-", "--", "-.", ":")  # which tell groups of a like grey apart


@dataclass(frozen=True)
class Panel:
    """The groups as one bundle sees them, and what to write above: its name and its d."""

    title: str
    groups: Sequence[GroupPoints]


def perplexity_of(points: int) -> float:
    """The t-SNE's perplexity for so many points: a third of the neighbours that a point has, at most 30."""
    return min(LARGEST_PERPLEXITY, (points - 1) / 3)


def embed(vectors: FloatArray) -> NDArray[np.float64] | None:
    """Consensus vectors (P, C), brought to length 1, as points (P, 2) of a t-SNE; the same each time.

    None of fewer than 4 vectors, and where all are the same: there is nothing to lay out.

    Raises
    ------
    TargetError
        If scikit-learn is missing.
    """
    points = unit(vectors)
    if len(points) < LEAST_POINTS or float(np.ptp(points, axis=0).max()) < 1e-9:
        return None
    with needing("pictures", "a t-SNE"):
        from sklearn.manifold import TSNE
    layout = TSNE(perplexity=perplexity_of(len(points)), init="pca", method="exact", random_state=SEED)
    return np.asarray(layout.fit_transform(points), np.float64)


def draw_space(panels: Sequence[Panel]) -> bytes | None:
    """Draw a t-SNE for each bundle as one PNG; None where no bundle has 4 points that differ.

    Each photo is the consensus of the sub-group it is the first of. A line leads from it to its group's own consensus,
    where the group's name stands, so that groups are told apart without their colours.

    Raises
    ------
    TargetError
        If matplotlib or scikit-learn is missing.
    """
    with needing("pictures", "a t-SNE"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    layouts = [(panel, embed(_vectors(panel.groups))) for panel in panels]
    drawn = [(panel, layout) for panel, layout in layouts if layout is not None]
    if not drawn:
        return None
    side = min(14.0, 4.2 + 0.45 * math.sqrt(max(len(layout) for _, layout in drawn)))
    figure = Figure(figsize=(side * len(drawn), side), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot: no window, nothing global
    for index, (panel, layout) in enumerate(drawn, 1):
        axes = figure.add_subplot(1, len(drawn), index)
        _draw_panel(axes, panel, layout)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # drawn as boxes, as in sheets
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _vectors(groups: Sequence[GroupPoints]) -> FloatArray:
    """Of each group, its own consensus and then those of the sub-groups that have a photo to show."""
    return np.concatenate([np.stack([group.whole, *group.parts[: len(group.markers)]]) for group in groups])


def _draw_panel(axes: Axes, panel: Panel, layout: NDArray[np.float64]) -> None:
    import matplotlib
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
    from matplotlib.patheffects import withStroke

    # Dark to middling: a frame of the lightest colours would be lost on white.
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.7, max(2, len(panel.groups))))
    zoom = max(0.3, min(0.55, 3.2 / math.sqrt(len(layout)))) * DOTS_PER_INCH / 100
    axes.set_title(in_one_line(panel.title), fontsize=10, parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    start = 0
    for index, group in enumerate(panel.groups):
        own, parts = layout[start], layout[start + 1 : start + 1 + len(group.markers)]
        start += 1 + len(parts)
        colour, line = colours[index], LINES[index % len(LINES)]
        for place, marker in zip(parts, group.markers, strict=True):
            axes.plot(*zip(own, place, strict=True), color=colour, linestyle=line, linewidth=1, zorder=1)
            photo = AnnotationBbox(OffsetImage(marker, zoom=zoom), tuple(place), pad=0.12, zorder=2,
                                   bboxprops={"edgecolor": colour, "linestyle": line, "linewidth": 1.5})  # fmt: skip
            axes.add_artist(photo)
        name = in_one_line(group.name)
        axes.text(own[0], own[1], name, ha="center", va="center", fontsize=9, fontweight="bold", zorder=3,
                  parse_math=False, path_effects=[withStroke(linewidth=3, foreground="white")])  # fmt: skip
    axes.margins(0.12)
    axes.update_datalim(layout)
    axes.autoscale_view()
