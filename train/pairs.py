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
from gconet.train.groups import LabelledGroup, read_pictures

OBJECT_SHARE = (0.25, 0.7)  # of the photo's side, for the object a synthetic group shares
DISTRACTOR_SHARE = (0.2, 0.45)
JIGSAW_SHARE = (0.35, 0.6)  # of the canvas, for the photo of the other group
WAY = 2  # of making pairs; raise it where they come out otherwise: kept features are of pairs made in one way
EPOCH_STREAM = 1  # of random numbers: the order of an epoch is drawn apart from its pairs


class PairBatch(NamedTuple):
    """Two groups, one after the other.

    Attributes
    ----------
    images : (2N, 3, S, S).
    truth : (2N, 1, S, S) in [0, 1], the object of a photo's own group.
    crossed_truth : the same of the other group's object; all zero but in photos it was put into.
    labels : (2N,) int64.
    """

    images: Tensor
    truth: Tensor
    crossed_truth: Tensor
    labels: Tensor


class Example(NamedTuple):
    """A square photo (RGB), the masks (L) of its own group's object and of the other group's."""

    photo: Picture
    own: Picture
    other: Picture


class PairDataset(Dataset[PairBatch]):
    """The pairs of a run, addressed by index.

    In each epoch every group is once the first of a pair, in random order; the second is any other group.
    """

    def __init__(self, groups: Sequence[LabelledGroup], config: TrainingConfig, steps: int) -> None:
        self.groups = groups
        self.config = config
        self.steps = steps
        masked = [sample for group in groups for sample in group.samples] if config.augmentation.instances else []
        self.cutouts = Cutouts.below(config.cutouts, masked)

    @property
    def classes(self) -> int:
        """Group labels: one per real group, then one per cut-out picture; objects of photos have their group's."""
        return len(self.groups) + len(self.cutouts.pictures)

    def __len__(self) -> int:
        return self.steps * self.config.pairs_per_step

    def __getitem__(self, index: int) -> PairBatch:
        """Pair number `index` of this run's seed."""
        rng = np.random.default_rng((self.config.seed, index))
        size = self.config.size_at(index // self.config.pairs_per_step, self.steps)
        chosen = self._labels(index, rng)
        count = self._photos_each(chosen)
        examples = [
            example
            for label, other in (chosen, chosen[::-1])
            for example in self._examples(label, other, count, size, rng)
        ]
        images = to_input([np.asarray(example.photo) for example in examples], Preprocessing(size))
        return PairBatch(
            torch.from_numpy(images),
            _truth([example.own for example in examples]),
            _truth([example.other for example in examples]),
            torch.tensor([self._class_of(label) for label in chosen]).repeat_interleave(count),
        )

    def _labels(self, index: int, rng: np.random.Generator) -> list[int]:
        """The two groups of a pair; each may give way to a synthetic one, never with the other's object.

        Numbers are of the real groups, then of the cut-outs, those from photos last.
        """
        count = len(self.groups)
        epoch, position = divmod(index, count)
        order = np.random.default_rng((self.config.seed, epoch, EPOCH_STREAM)).permutation(count)
        first = int(order[position])
        labels = [first, (first + int(rng.integers(1, count))) % count]
        if self.config.balance:
            chance = np.array([len(group.samples) for group in self.groups]) ** self.config.balance
            labels = rng.choice(count, 2, replace=False, p=chance / chance.sum()).tolist()
        pictures, masked = len(self.cutouts.pictures), len(self.cutouts.masked)
        synthetic, instances = self.config.augmentation.synthetic, self.config.augmentation.instances
        draw = rng.random(2)
        if pictures and synthetic:
            labels = np.where(draw < synthetic, count + rng.choice(pictures, 2, replace=False), labels).tolist()
        if masked and instances:
            real = labels
            while labels is real or self._class_of(labels[0]) == self._class_of(labels[1]):
                numbers = count + pictures + rng.choice(masked, 2, replace=False)
                labels = np.where(draw >= 1 - instances, numbers, real).tolist()
        return labels

    def _class_of(self, label: int) -> int:
        """What a group shows: for an object of a photo, its real group."""
        if label < self.classes:
            return label
        ends = np.cumsum([len(group.samples) for group in self.groups])
        return int(np.searchsorted(ends, label - self.classes, side="right"))

    def _photos_each(self, labels: Sequence[int]) -> int:
        if self.config.small_groups != "cut":
            return self.config.group_size
        real = [len(self.groups[label].samples) for label in labels if label < len(self.groups)]
        return min([self.config.group_size, *real])

    def _examples(self, label: int, other: int, count: int, size: int, rng: np.random.Generator) -> Iterator[Example]:
        numbers: Sequence[int] = range(count)
        if label < len(self.groups):
            # All photos before any comes again, where a group has too few.
            samples = len(self.groups[label].samples)
            numbers = np.concatenate([rng.permutation(samples) for _ in range(-(-count // samples))])[:count].tolist()
        for number in numbers:
            photo, own = self._picture(label, other, number, size, rng)
            example = Example(photo, own, Image.new("L", own.size))
            # A synthetic example has its distractors already.
            if label < len(self.groups) and rng.random() < self.config.augmentation.distractor:
                example = self._with_distractor(example, label, other, size, rng)
            if rng.random() < self.config.augmentation.jigsaw:
                example = beside(example, *self._any_picture(other, label, size, rng), rng)
            yield example

    def _picture(
        self, label: int, other: int, number: int, size: int, rng: np.random.Generator
    ) -> tuple[Picture, Picture]:
        """A photo of a group with the mask of its object: photo `number` of a real one, or a synthetic one."""
        if label >= len(self.groups):
            return self._synthetic_picture(label, other, size, rng)
        return self._augmented(self.groups[label], number, size, rng)

    def _augmented(
        self, group: LabelledGroup, number: int, size: int, rng: np.random.Generator
    ) -> tuple[Picture, Picture]:
        return augment(*resize_pair(*read_pictures(group.samples[number]), size), self.config.augmentation, rng)

    def _any_picture(self, label: int, other: int, size: int, rng: np.random.Generator) -> tuple[Picture, Picture]:
        number = int(rng.integers(len(self.groups[label].samples))) if label < len(self.groups) else 0
        return self._picture(label, other, number, size, rng)

    def _with_distractor(
        self, example: Example, label: int, other: int, size: int, rng: np.random.Generator
    ) -> Example:
        """Paste in the object of the other group, cut out by its mask, or any cut-out that shows neither's."""
        known = self._cutouts_of(label, other)
        shows_other = len(known) == len(self.cutouts) or rng.random() < 0.5
        if shows_other:
            piece, alpha = self._any_picture(other, label, size, rng)
            piece.putalpha(alpha)
        else:
            piece = self.cutouts.draw(rng, known)
        photo, opacity = paste(example.photo, piece, DISTRACTOR_SHARE, rng)
        added = Image.fromarray(np.rint(opacity * 255).astype(np.uint8)) if shows_other else example.other
        return Example(photo, _covered(example.own, opacity), added)

    def _cutouts_of(self, *labels: int) -> set[int]:
        """The cut-outs, by number, that show the object of any of these groups."""
        numbers = set()
        for shown in map(self._class_of, labels):
            if shown >= len(self.groups):
                numbers.add(shown - len(self.groups))
            elif self.cutouts.masked:
                first = len(self.cutouts.pictures) + sum(len(before.samples) for before in self.groups[:shown])
                numbers |= set(range(first, first + len(self.groups[shown].samples)))
        return numbers

    def _synthetic_picture(
        self, label: int, other: int, size: int, rng: np.random.Generator
    ) -> tuple[Picture, Picture]:
        """A cut-out over a photo of a third group, up to two further cut-outs beside or upon it, none of `other`'s."""
        known = self._cutouts_of(label, other)
        spare = len(known) < len(self.cutouts)
        shown = {self._class_of(label), self._class_of(other)}
        # Where there is no third group, any: its object is then taken for something else.
        backgrounds = [g for i, g in enumerate(self.groups) if i not in shown] or self.groups
        group = backgrounds[int(rng.integers(len(backgrounds)))]
        photo, _ = self._augmented(group, int(rng.integers(len(group.samples))), size, rng)
        if rng.random() < 0.5 and spare:
            photo, _ = paste(photo, self.cutouts.draw(rng, known), OBJECT_SHARE, rng)
        photo, opacity = paste(photo, self.cutouts.read(label - len(self.groups)), OBJECT_SHARE, rng)
        mask = Image.fromarray(np.rint(opacity * 255).astype(np.uint8))
        if rng.random() < 0.5 and spare:
            photo, covered = paste(photo, self.cutouts.draw(rng, known), DISTRACTOR_SHARE, rng)
            mask = _covered(mask, covered)
        return photo, mask


def beside(example: Example, photo: Picture, mask: Picture, rng: np.random.Generator) -> Example:
    """An example narrowed or flattened to make room for a photo of the other group and its mask, on either side."""
    size = example.photo.width
    room = int(size * rng.uniform(*JIGSAW_SHARE))
    first, upright = rng.random() < 0.5, rng.random() < 0.5
    places = [(0, size - room), (size - room, size)] if first else [(room, size), (0, room)]

    def joined(mode: str, *parts: Picture | None) -> Picture:
        canvas = Image.new(mode, (size, size))
        for part, (start, end) in zip(parts, places, strict=True):
            if part is not None:
                shape, corner = ((end - start, size), (start, 0)) if upright else ((size, end - start), (0, start))
                canvas.paste(part.resize(shape, Image.Resampling.BILINEAR), corner)
        return canvas

    return Example(
        joined("RGB", example.photo, photo), joined("L", example.own, None), joined("L", example.other, mask)
    )


def _truth(masks: Sequence[Picture]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(mask) for mask in masks])[:, None].astype(np.float32) / 255)


def _covered(mask: Picture, opacity: NDArray[np.float32]) -> Picture:
    """What is left of a mask under something opaque."""
    return Image.fromarray(np.rint(np.asarray(mask) * (1 - opacity)).astype(np.uint8))
