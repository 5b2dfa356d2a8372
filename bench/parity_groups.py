"""An engine beside the eager network, group size by group size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from gconet.bench.bisect_layers import exported_layers
from gconet.bench.bisect_runners import LayerRunner
from gconet.bench.parity_accuracy import TruthGroup, eager_figures
from gconet.bench.parity_statistics import ParityRow, compare
from gconet.bench.photo_groups import extend_photos
from gconet.bench.reference import eager_maps
from gconet.bench.tolerances import tolerance
from gconet.bench.toolboxes import Figures
from gconet.runtime.large_groups import infer_group
from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import FloatArray, Photo, Preprocessing, to_input
from gconet.runtime.session import Session
from gconet.train.model import GCoNet

GROUP_SIZES = (1, 2, 5, 16)  # and the bundle's maximum


@dataclass(frozen=True)
class ComparedPhoto:
    """One photo of a group of `group`: the photo (H, W, 3) uint8 and both maps (S, S)."""

    group: int
    index: int
    photo: Photo
    reference: FloatArray
    engine: FloatArray

    @property
    def mean_abs(self) -> float:
        """Mean difference of the maps; infinite if one is not finite."""
        mean = float(np.abs(self.engine.astype(np.float64) - self.reference).mean())
        return mean if np.isfinite(mean) else np.inf


class EagerReference:
    """What bundles of one network are compared with, on groups of photos; made once, however many they are."""

    def __init__(self, model: GCoNet, photos: Sequence[Photo]) -> None:
        self.model = model
        self.photos = photos
        self._inputs: dict[Preprocessing, FloatArray] = {}
        self._maps: dict[tuple[Preprocessing, int], FloatArray] = {}
        self._layers: dict[int, LayerRunner] = {}
        self._figures: dict[Preprocessing, list[Figures]] = {}

    def group(self, size: int) -> list[Photo]:
        """The photos of a group of `size`; where there are too few they come again, mirrored and turned."""
        return extend_photos(self.photos, size)

    def inputs(self, preprocessing: Preprocessing, size: int) -> FloatArray:
        """Network inputs (size, 3, S, S)."""
        known = self._inputs.get(preprocessing)
        if known is None or len(known) < size:
            known = self._inputs[preprocessing] = to_input(self.group(size), preprocessing)
        return known[:size]

    def maps(self, preprocessing: Preprocessing, size: int) -> FloatArray:
        """The eager network's maps (size, 1, S, S)."""
        key = preprocessing, size
        if key not in self._maps:
            self._maps[key] = eager_maps(self.model, self.inputs(*key))
        return self._maps[key]

    def layers(self, preprocessing: Preprocessing) -> LayerRunner:
        """The exported fp32 graph, for looking at its layers."""
        size = preprocessing.size
        if size not in self._layers:
            self._layers[size] = exported_layers(self.model, size)
        return self._layers[size]

    def figures(self, preprocessing: Preprocessing, groups: Sequence[TruthGroup]) -> list[Figures]:
        """What the eager network scores on labelled groups, always the same ones."""
        if preprocessing not in self._figures:
            count = sum(len(group.photos) for group in groups)
            with tqdm(total=count, desc="scores of eager PyTorch", unit="photo", disable=None) as bar:
                self._figures[preprocessing] = eager_figures(self.model, preprocessing, groups, bar)
        return self._figures[preprocessing]


def compare_groups(
    session: Session, manifest: Manifest, reference: EagerReference, progress: Callable[[str], None]
) -> Iterator[tuple[ParityRow, ComparedPhoto]]:
    """For groups of 1, 2, 5, 16 and the bundle's maximum, as far as it goes: the statistics, and the worst photo."""
    limits = tolerance(manifest.target, manifest.precision)
    sizes = sorted({*(size for size in GROUP_SIZES if size <= manifest.max_group), manifest.max_group})
    reference.inputs(manifest.preprocessing, sizes[-1])
    for size in sizes:
        progress(f"parity: group of {size}")
        wanted = reference.maps(manifest.preprocessing, size)
        found = infer_group(session, manifest, reference.inputs(manifest.preprocessing, size))
        row = compare(wanted, found, limits)
        index = row.worst_photo
        yield row, ComparedPhoto(size, index, reference.group(size)[index], wanted[index, 0], found[index, 0])


def measure_parity(
    session: Session,
    manifest: Manifest,
    model: GCoNet,
    photos: Sequence[Photo],
    progress: Callable[[str], None],
) -> list[ParityRow]:
    """Compare for groups of 1, 2, 5, 16 and the bundle's maximum, as far as it goes."""
    return [row for row, _ in compare_groups(session, manifest, EagerReference(model, photos), progress)]
