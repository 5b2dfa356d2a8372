"""What frozen encoder blocks make of the photos of a pair: computed once, kept on disk, used for several steps.

On a CPU most of a step that trains levels 4 and 3 only is spent on encoder blocks that never change. Ours, not the
paper's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gconet.runtime.atomic import cannot_write, replacing
from gconet.runtime.errors import UsageError
from gconet.train.config import COARSE, TrainingConfig
from gconet.train.failures import TrainingError
from gconet.train.groups import digest
from gconet.train.model import GCoNet
from gconet.train.pairs import WAY, PairBatch, PairDataset
from gconet.train.validation import autocast

ORDER_STREAM = 2  # of random numbers: pairs come again in orders that are drawn apart from all else
UNUSED = torch.empty(0)  # in place of the features of blocks that coarse levels do not look at


class FeatureBatch(NamedTuple):
    """A pair of groups by its features, those of the first encoder blocks; the rest as in `PairBatch`."""

    features: list[Tensor]
    truth: Tensor
    crossed_truth: Tensor
    labels: Tensor


class KeptFeatures:
    """Batches for the coarse steps of a run, by index.

    Pair numbers are as in the run's dataset, but only the first of them are used, each `config.reuse` times. A pair is
    a file in a folder named after all it depends on: a run that was stopped, or another one on the same frozen blocks,
    finds it there. Features are kept in half precision, and used so from the first time on.

    Parameters
    ----------
    model : frozen where it is to be, see `loop.freeze`.
    dataset : of the run; its photos have the same size in all coarse steps.
    steps : of the whole run.
    """

    def __init__(self, model: GCoNet, dataset: PairDataset, config: TrainingConfig, steps: int) -> None:
        self._model, self._dataset, self._config = model, dataset, config
        self.steps = next((step for step in range(steps) if config.level_at(step, steps) < COARSE), steps)
        self.pairs = -(-self.steps * config.pairs_per_step // config.reuse)
        self._blocks = _frozen_blocks(model)
        self.folder = (config.features or config.out / "features") / self._fingerprint()

    def __getitem__(self, index: int) -> FeatureBatch:
        """The pair with this number among those of the run, on the run's device; computed where it is not kept.

        Raises
        ------
        UsageError
            If it cannot be written.
        TrainingError
            If features are too large for half precision.
        """
        number = self._pair(index)
        path = self._path(number)
        tensors = _read(path)
        if tensors is None:
            tensors = self._compute(self._dataset[number])
            with replacing(path) as temporary:
                temporary.write_bytes(save(tensors))
        device = self._config.device
        kept = [tensors[f"conv{block}"].to(device).float() for block in self._kept_blocks()]
        if self._config.channels_last:
            kept = [tensor.contiguous(memory_format=torch.channels_last) for tensor in kept]
        truth, crossed_truth = (tensors[name].to(device).float() / 255 for name in ("truth", "crossed_truth"))
        unused = [UNUSED] * (self._blocks - len(kept))
        return FeatureBatch([*unused, *kept], truth, crossed_truth, tensors["labels"].to(device))

    def make_room(self) -> str:
        """What will be kept and where, in words; raises UsageError if the disk has no room for what is missing."""
        c = self._config
        size = c.size_at(0, 1)
        values = sum(
            c.architecture.encoder_channels[block - 1] * (size >> (block - 1)) ** 2 for block in self._kept_blocks()
        )
        each = 2 * c.group_size * (2 * values + 2 * size**2)  # bytes of a pair: features of two, masks of one
        missing = sum(not self._path(number).is_file() for number in range(self.pairs))
        with cannot_write(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        if each * missing > free:
            raise UsageError(
                f"features of {missing} pairs come to {each * missing / 1e9:.1f} GB, {self.folder} has room for "
                f"{free / 1e9:.1f} GB: name another folder with --features, or raise --reuse"
            )
        return (
            f"features of {self.pairs} pairs, {each * self.pairs / 1e9:.1f} GB, are kept in {self.folder}; "
            f"{missing} are computed on the way"
        )

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.safetensors"

    def _pair(self, index: int) -> int:
        round_, position = divmod(index, self.pairs)
        if round_ == 0:
            return position
        return int(np.random.default_rng((self._config.seed, round_, ORDER_STREAM)).permutation(self.pairs)[position])

    def _kept_blocks(self) -> range:
        return range(min(COARSE, self._blocks), self._blocks + 1)

    @torch.no_grad()
    def _compute(self, batch: PairBatch) -> dict[str, Tensor]:
        images = batch.images.to(self._config.device)
        if self._config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self._config):
            features = self._model.encoder.first(images, self._blocks)
        tensors = {f"conv{block}": features[block - 1].half().cpu().contiguous() for block in self._kept_blocks()}
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise TrainingError(
                "features of the frozen encoder pass 65504 and cannot be kept in half precision: add --informed-start, "
                "or leave --reuse out"
            )
        masks = {"truth": batch.truth, "crossed_truth": batch.crossed_truth}
        tensors |= {name: (mask * 255).round().to(torch.uint8) for name, mask in masks.items()}
        return tensors | {"labels": batch.labels}

    def _fingerprint(self) -> str:
        """Of the frozen blocks' weights, and of all that the pairs depend on; DataError if a file cannot be read."""
        c = self._config
        made_of = {
            "seed": c.seed, "size": c.size_at(0, 1), "group_size": c.group_size, "small_groups": c.small_groups,
            "balance": c.balance, "augmentation": dataclasses.asdict(c.augmentation), "arithmetic": c.arithmetic,
            "cutouts": [digest(path).hex() for path in self._dataset.cutouts.pictures],
            "groups": [[digest(s.photo).hex() + digest(s.mask).hex() for s in g.samples] for g in self._dataset.groups],
            "way": WAY,
        }  # fmt: skip
        made = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
        for block in list(self._model.encoder.children())[: self._blocks]:
            for parameter in block.parameters():
                made.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
        return made.hexdigest()[:16]


def _frozen_blocks(model: GCoNet) -> int:
    """How many encoder blocks have nothing that learns, from the first on."""
    for count, block in enumerate(model.encoder.children()):
        if any(parameter.requires_grad for parameter in block.parameters()):
            return count
    return len(list(model.encoder.children()))


def _read(path: Path) -> dict[str, Tensor] | None:
    """A kept pair; None if there is none, or none that can be read: it is then made again."""
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError):
        return None
