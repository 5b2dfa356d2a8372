"""How well maps leave the other object of mixed groups alone: `python bench/suppression.py --pred MAPS --mixed mixed`.

`mixed` comes from `bench/mixed_groups.py`. A detector that knows nothing of the group marks both objects alike.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gconet.bench.map_pairs import find_pairs, read_pair
from gconet.bench.metrics import Grey
from gconet.runtime.command_line import EXIT_DONE, Parser, run, write_json


@dataclass(frozen=True)
class Suppression:
    """Over the photos that show another group's object, means of shares in [0, 1].

    Attributes
    ----------
    photos : how many show one.
    shared, other : mean map over the pixels of the shared object, and over those of the other.
    iou : soft intersection over union of map and shared object.
    """

    photos: int
    shared: float
    other: float
    iou: float


def suppression(maps: Iterable[tuple[Grey, Grey, Grey]]) -> Suppression | None:
    """Score maps, each (H, W) uint8 with the masks of the shared and the other object; None if no photo shows both."""
    rows = []
    for saliency, shared, other in maps:
        if shared.any() and other.any():
            p, g, o = (picture.astype(np.float64) / 255 for picture in (saliency, shared, other))
            common = (p * g).sum()
            rows.append((common / g.sum(), (p * o).sum() / o.sum(), common / (p.sum() + g.sum() - common)))
    if not rows:
        return None
    return Suppression(len(rows), *np.mean(rows, axis=0).tolist())


def main(arguments: Sequence[str]) -> int:
    """Score a folder of maps, group by group; errors as raised by `find_pairs` and `read_pair`."""
    parser = Parser("suppression.py", "Score how well maps of mixed groups leave the other object alone.")
    parser.add_argument("--pred", type=Path, required=True, help="maps of images/, any method's")
    parser.add_argument("--mixed", type=Path, required=True, help="folder that bench/mixed_groups.py made")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    groups: dict[str, list[tuple[Grey, Grey, Grey]]] = {}
    for own, other in zip(
        find_pairs(options.pred, options.mixed / "gts"), find_pairs(options.pred, options.mixed / "others"), strict=True
    ):
        saliency, shared = read_pair(own, resize=True)
        groups.setdefault(own.group, []).append((saliency, shared, read_pair(other, resize=True)[1]))
    everything = [photo for photos in groups.values() for photo in photos]
    scored = {name: suppression(photos) for name, photos in {**groups, "all": everything}.items()}
    rows = {name: score for name, score in scored.items() if score}
    print(f"{'group':<28} {'photos':>6} {'shared':>7} {'other':>7} {'IoU':>7}")
    for name, row in rows.items():
        print(f"{name:<28} {row.photos:>6} {row.shared:>7.3f} {row.other:>7.3f} {row.iou:>7.3f}")
    if options.json:
        write_json(options.json, {name: dataclasses.asdict(row) for name, row in rows.items()})
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run(main))
