"""Consensus vectors of groups and of their sub-groups, and how far apart they lie: d of the paper's figure 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.command_line import in_one_line
from gconet.runtime.detector import Detector
from gconet.runtime.prepared_group import Photos
from gconet.runtime.preprocess import FloatArray

DEFINITION = (
    "d of a group: mean squared distance of the unit-norm consensus vectors of its sub-groups to their mean; "
    "d: mean over the groups of two or more sub-groups; between: mean squared distance of these groups' means to the "
    "mean of the means; ratio: d / between"
)


@dataclass(frozen=True)
class GroupSpread:
    """Sub-groups of a group, and the variance of their consensus; None of fewer than two."""

    name: str
    subgroups: int
    d: float | None


@dataclass(frozen=True)
class Spread:
    """How tight groups lie, and how far from each other; see `measure_spread`."""

    d: float | None
    between: float | None
    ratio: float | None
    groups: Sequence[GroupSpread]

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def subgroup_vectors(
    detector: Detector, photos: Photos, size: int, progress: Callable[[int], object] = lambda _: None
) -> FloatArray:
    """The consensus of each run of `size` photos of a group, by itself; the last run may be shorter.

    Parameters
    ----------
    size : 1 gives every photo's own consensus, that of a group of one.
    progress : called with the number of photos done since the last call.

    Returns
    -------
    (ceil(N / size), C) float32.

    Raises
    ------
    As for `Detector.consensus`.
    """
    vectors = []
    for start in range(0, len(photos), size):
        part = photos[start : start + size]
        vectors.append(detector.consensus(part))
        progress(len(part))
    return np.stack(vectors)


def unit(vectors: FloatArray) -> NDArray[np.float64]:
    """Vectors (P, C) at length 1; a vector of zeros stays one."""
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0)


def cosine(first: FloatArray, second: FloatArray) -> float:
    """The cosine of two consensus vectors (C,), in [-1, 1]; 0 if one is all zeros."""
    a, b = unit(np.stack([first, second]))
    return float((a @ b).clip(-1, 1))


def measure_spread(vectors: Iterable[tuple[str, FloatArray]]) -> Spread:
    """The intra-group variance d, and that between groups, of consensus vectors.

    Vectors are brought to length 1, since their length says how bright features are, not what they show. Then

    - d of a group is the mean squared distance of its vectors to their mean m: 0 where all agree, at most 1. Of P
      vectors it is (P - 1) / P of what it would be of many of the same kind: compare networks on the same groups;
    - d is the mean over groups, each counting once whatever its size; groups of one vector have none;
    - between is the mean squared distance of these groups' m to the mean of all m, None of fewer than two groups;
    - ratio is d / between: small where groups are tight and apart; None where between is 0.

    Parameters
    ----------
    vectors : of each group its name and the (P, C) consensus vectors of its P sub-groups, as of `subgroup_vectors`.
    """
    groups, spreads, means = [], [], []
    for name, group in vectors:
        points = unit(group)
        mean = points.mean(axis=0)
        d = None
        if len(points) > 1:
            d = float(((points - mean) ** 2).sum(axis=1).mean())
            spreads.append(d)
            means.append(mean)
        groups.append(GroupSpread(name, len(points), d))
    between = float(((np.stack(means) - np.mean(means, axis=0)) ** 2).sum(axis=1).mean()) if len(means) > 1 else None
    overall = float(np.mean(spreads)) if spreads else None
    ratio = overall / between if overall is not None and between else None
    return Spread(overall, between, ratio, groups)


def spread_table(spreads: Mapping[str, Spread]) -> str:
    """A table for people: a column for each bundle, by its name, a row for each group, and the sums below."""
    columns = list(spreads.items())
    groups = columns[0][1].groups
    names = [*(in_one_line(group.name) for group in groups), "d, mean of groups", "between groups", "d / between"]
    left = max(len("group"), *map(len, names))
    widths = [max(8, len(name)) for name, _ in columns]

    def line(name: str, subgroups: str, cells: Sequence[str]) -> str:
        numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"{name:<{left}}  {subgroups:>10}  {numbers}".rstrip()

    rows = [line("group", "sub-groups", [name for name, _ in columns])]
    for index, (name, group) in enumerate(zip(names, groups, strict=False)):
        rows.append(line(name, str(group.subgroups), [format_figure(one.groups[index].d) for _, one in columns]))
    for title, key in zip(names[-3:], ("d", "between", "ratio"), strict=True):
        rows.append(line(title, "", [format_figure(getattr(one, key)) for _, one in columns]))
    return "\n".join(rows)


def format_figure(value: float | None) -> str:
    """A variance or a ratio as tables have it."""
    return "-" if value is None else f"{value:.4f}"
