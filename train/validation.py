"""Scores on held-out groups while training, at the network's resolution."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from gconet.bench.metrics import mean_absolute_error, s_measure
from gconet.runtime.preprocess import FloatArray, Preprocessing, to_input
from gconet.train.augment import resize_pair
from gconet.train.config import TrainingConfig
from gconet.train.groups import LabelledGroup, read_pictures
from gconet.train.model import GCoNet

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
MAX_GROUP = 16  # photos of a group seen at once; larger groups are cut into even parts, which is quicker and no harder


@torch.inference_mode()
def validate(
    model: GCoNet, groups: Sequence[LabelledGroup], size: int, config: TrainingConfig, finest: int = 1
) -> dict[str, float]:
    """Mean `s_measure` and `mae` over the photos of the groups, at the network's resolution; empty without groups."""
    scores: list[tuple[float, float]] = []
    for group in groups:
        count, parts = len(group.samples), -(-len(group.samples) // MAX_GROUP)
        for start, end in pairwise(count * number // parts for number in range(parts + 1)):
            part = LabelledGroup(group.name, group.samples[start:end])
            for saliency, mask in zip(*predict(model, part, size, config, finest), strict=True):
                scores.append((s_measure(saliency, mask >= 0.5), mean_absolute_error(saliency, mask)))
    if not scores:
        return {}
    return dict(zip(("s_measure", "mae"), np.mean(scores, axis=0).tolist(), strict=True))


@torch.inference_mode()
def predict(
    model: GCoNet, group: LabelledGroup, size: int, config: TrainingConfig, finest: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Maps of level `finest` and masks, (N, size, size) in [0, 1], of one group; leaves the model in eval mode."""
    model.eval()
    pairs = [resize_pair(*read_pictures(sample), size) for sample in group.samples]
    images = torch.from_numpy(to_input([np.asarray(photo) for photo, _ in pairs], Preprocessing(size)))
    images = images.to(config.device)
    if config.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with autocast(config):
        maps = model(images) if finest == 1 else model.coarse_maps(images, finest)
    masks = np.stack([np.asarray(mask, np.float32) for _, mask in pairs]) / np.float32(255)
    return maps[:, 0].float().cpu().numpy(), masks


def autocast(config: TrainingConfig) -> contextlib.AbstractContextManager[None]:
    """The forward pass's arithmetic."""
    if config.arithmetic == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(config.device).type, AUTOCAST[config.arithmetic])
