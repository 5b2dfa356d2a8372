"""Pairs of groups, the unit of training: example `index` of a seed is the same whenever and wherever it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from gconet.runtime.preprocess import Preprocessing, to_input
from gconet.train.augment import Picture, augment, paste, resize_pair
from gconet.train.config import TrainingConfig
from gconet.train.groups import DataError, LabelledGroup, Sample, read_pictures

CUTOUT_SUFFIXES = {".png", ".webp"}
OBJECT_SHARE = (0.25, 0.7)  # of the photo's side, for the object a synthetic group shares
DISTRACTOR_SHARE = (0.2, 0.45)


class PairBatch(NamedTuple):
    """Two groups, one after the other: images (2N, 3, S, S), truth (2N, 1, S, S) in [0, 1], labels (2N,)."""

    images: Tensor
    truth: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Cutouts:
    """Objects cut out of their background, as paths of RGBA pictures."""

    paths: tuple[Path, ...]

    @staticmethod
    def below(folder: Path | None) -> Cutouts:
        """All cut-outs of a folder, none for None; raises DataError if the folder holds none."""
        if folder is None:
            return Cutouts(())
        paths = tuple(sorted(path for path in folder.glob("*") if path.suffix in CUTOUT_SUFFIXES))
        if not paths:
            raise DataError([f"no cut-outs (.png, .webp) in {folder}"])
        return Cutouts(paths)

    def read(self, index: int) -> Picture:
        """One cut-out as RGBA."""
        with Image.open(self.paths[index]) as image:
            return image.convert("RGBA")

    def draw(self, rng: np.random.Generator) -> Picture:
        """Any cut-out."""
        return self.read(int(rng.integers(len(self.paths))))


class PairDataset(Dataset[PairBatch]):
    """Endless pairs of groups, addressed by index."""

    def __init__(self, groups: Sequence[LabelledGroup], config: TrainingConfig, steps: int) -> None:
        self.groups = groups
        self.config = config
        self.steps = steps
        self.cutouts = Cutouts.below(config.cutouts)

    @property
    def classes(self) -> int:
        """Group labels: one per real group, then one per cut-out."""
        return len(self.groups) + len(self.cutouts.paths)

    def __len__(self) -> int:
        return self.steps * self.config.pairs_per_step

    def __getitem__(self, index: int) -> PairBatch:
        """Pair number `index` of this run's seed."""
        rng = np.random.default_rng((self.config.seed, index))
        size = self.config.size_at(index // self.config.pairs_per_step, self.steps)
        first, second = rng.choice(len(self.groups), 2, replace=False)
        photos: list[NDArray[np.uint8]] = []
        masks: list[NDArray[np.uint8]] = []
        labels: list[int] = []
        for group in (int(first), int(second)):
            synthetic = bool(self.cutouts.paths) and rng.random() < self.config.augmentation.synthetic
            label, pictures = self._synthetic_group(size, rng) if synthetic else self._real_group(group, size, rng)
            for photo, mask in pictures:
                photos.append(np.asarray(photo))
                masks.append(np.asarray(mask))
            labels += [label] * len(pictures)
        truth = torch.from_numpy(np.stack(masks)[:, None].astype(np.float32) / 255)
        images = torch.from_numpy(to_input(photos, Preprocessing(size)))
        return PairBatch(images, truth, torch.tensor(labels))

    def _real_group(self, index: int, size: int, rng: np.random.Generator) -> tuple[int, list[tuple[Picture, Picture]]]:
        samples = self.groups[index].samples
        # All photos before any comes again, where a group has too few.
        rounds = -(-self.config.group_size // len(samples))
        chosen = np.concatenate([rng.permutation(len(samples)) for _ in range(rounds)])[: self.config.group_size]
        return index, [self._real_example(samples[number], size, rng) for number in chosen]

    def _real_example(self, sample: Sample, size: int, rng: np.random.Generator) -> tuple[Picture, Picture]:
        photo, mask = read_pictures(sample)
        photo, mask = augment(*resize_pair(photo, mask, size), self.config.augmentation, rng)
        if self.cutouts.paths and rng.random() < self.config.augmentation.distractor:
            photo, opacity = paste(photo, self.cutouts.draw(rng), DISTRACTOR_SHARE, rng)
            mask = _covered(mask, opacity)
        return photo, mask

    def _synthetic_group(self, size: int, rng: np.random.Generator) -> tuple[int, list[tuple[Picture, Picture]]]:
        """One cut-out over photos of different groups, one or two others beside or upon it."""
        shared = int(rng.integers(len(self.cutouts.paths)))
        examples = []
        for _ in range(self.config.group_size):
            group = self.groups[int(rng.integers(len(self.groups)))]
            background = group.samples[int(rng.integers(len(group.samples)))]
            photo, _ = augment(*resize_pair(*read_pictures(background), size), self.config.augmentation, rng)
            if rng.random() < 0.5:
                photo, _ = paste(photo, self.cutouts.draw(rng), OBJECT_SHARE, rng)
            photo, opacity = paste(photo, self.cutouts.read(shared), OBJECT_SHARE, rng)
            mask = Image.fromarray(np.rint(opacity * 255).astype(np.uint8))
            if rng.random() < 0.5:
                photo, covered = paste(photo, self.cutouts.draw(rng), DISTRACTOR_SHARE, rng)
                mask = _covered(mask, covered)
            examples.append((photo, mask))
        return len(self.groups) + shared, examples


def _covered(mask: Picture, opacity: NDArray[np.float32]) -> Picture:
    """What is left of a mask under something opaque."""
    return Image.fromarray(np.rint(np.asarray(mask) * (1 - opacity)).astype(np.uint8))
