"""Pairs of groups, the unit of training: example `index` of a seed is the same whenever and wherever it is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from gconet.train.cutouts import Cutouts
from gconet.train.groups import LabelledGroup, Sample, read_pictures

OBJECT_SHARE = (0.25, 0.7)  # of the photo's side, for the object a synthetic group shares
DISTRACTOR_SHARE = (0.2, 0.45)
EPOCH_STREAM = 1  # of random numbers: the order of an epoch is drawn apart from its pairs


class PairBatch(NamedTuple):
    """Two groups, one after the other: images (2N, 3, S, S), truth (2N, 1, S, S) in [0, 1], labels (2N,)."""

    images: Tensor
    truth: Tensor
    labels: Tensor


class PairDataset(Dataset[PairBatch]):
    """The pairs of a run, addressed by index.

    In each epoch every group is once the first of a pair, in random order; the second is any other group.
    """

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
        chosen = self._labels(index, rng)
        count = self._photos_each(chosen)
        photos: list[NDArray[np.uint8]] = []
        masks: list[NDArray[np.uint8]] = []
        for label in chosen:
            for photo, mask in self._examples(label, count, size, rng):
                photos.append(np.asarray(photo))
                masks.append(np.asarray(mask))
        truth = torch.from_numpy(np.stack(masks)[:, None].astype(np.float32) / 255)
        images = torch.from_numpy(to_input(photos, Preprocessing(size)))
        return PairBatch(images, truth, torch.tensor(chosen).repeat_interleave(count))

    def _labels(self, index: int, rng: np.random.Generator) -> list[int]:
        """The two groups of a pair; each may give way to a synthetic one, never both to the same cut-out."""
        count = len(self.groups)
        epoch, position = divmod(index, count)
        order = np.random.default_rng((self.config.seed, epoch, EPOCH_STREAM)).permutation(count)
        first = int(order[position])
        labels = [first, (first + int(rng.integers(1, count))) % count]
        if self.cutouts.paths and self.config.augmentation.synthetic:
            synthetic = rng.random(2) < self.config.augmentation.synthetic
            cutouts = count + rng.choice(len(self.cutouts.paths), 2, replace=False)
            labels = np.where(synthetic, cutouts, labels).tolist()
        return labels

    def _photos_each(self, labels: Sequence[int]) -> int:
        if self.config.small_groups != "cut":
            return self.config.group_size
        real = [len(self.groups[label].samples) for label in labels if label < len(self.groups)]
        return min([self.config.group_size, *real])

    def _examples(
        self, label: int, count: int, size: int, rng: np.random.Generator
    ) -> Iterator[tuple[Picture, Picture]]:
        if label >= len(self.groups):
            cutout = label - len(self.groups)
            return (self._synthetic_example(cutout, size, rng) for _ in range(count))
        samples = self.groups[label].samples
        # All photos before any comes again, where a group has too few.
        rounds = -(-count // len(samples))
        chosen = np.concatenate([rng.permutation(len(samples)) for _ in range(rounds)])[:count]
        return (self._real_example(samples[number], size, rng) for number in chosen)

    def _real_example(self, sample: Sample, size: int, rng: np.random.Generator) -> tuple[Picture, Picture]:
        photo, mask = read_pictures(sample)
        photo, mask = augment(*resize_pair(photo, mask, size), self.config.augmentation, rng)
        if self.cutouts.paths and rng.random() < self.config.augmentation.distractor:
            photo, opacity = paste(photo, self.cutouts.draw(rng), DISTRACTOR_SHARE, rng)
            mask = _covered(mask, opacity)
        return photo, mask

    def _synthetic_example(self, cutout: int, size: int, rng: np.random.Generator) -> tuple[Picture, Picture]:
        """A cut-out over a photo of any group, one or two other cut-outs beside or upon it."""
        group = self.groups[int(rng.integers(len(self.groups)))]
        background = group.samples[int(rng.integers(len(group.samples)))]
        photo, _ = augment(*resize_pair(*read_pictures(background), size), self.config.augmentation, rng)
        if rng.random() < 0.5:
            photo, _ = paste(photo, self.cutouts.draw_other(cutout, rng), OBJECT_SHARE, rng)
        photo, opacity = paste(photo, self.cutouts.read(cutout), OBJECT_SHARE, rng)
        mask = Image.fromarray(np.rint(opacity * 255).astype(np.uint8))
        if rng.random() < 0.5:
            photo, covered = paste(photo, self.cutouts.draw_other(cutout, rng), DISTRACTOR_SHARE, rng)
            mask = _covered(mask, covered)
        return photo, mask


def _covered(mask: Picture, opacity: NDArray[np.float32]) -> Picture:
    """What is left of a mask under something opaque."""
    return Image.fromarray(np.rint(np.asarray(mask) * (1 - opacity)).astype(np.uint8))
