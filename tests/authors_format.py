"""Weights and inputs anyone can regenerate, under the authors' parameter names, and the figures their code gives."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Large enough for the attention to be far from uniform and for the consensus to matter.
GAINS = {
    "co_x5.all_attention.conv6.weight": 400.0,
    "co_x5.all_attention.query_transform.weight": 1.5,
    "co_x5.all_attention.key_transform.weight": 1.5,
}


def authors_state(reference: Path) -> dict[str, Tensor]:
    """A state dict with every name and shape of the authors' checkpoint but the 120 million of the dead classifier."""
    shapes = json.loads((reference / "state_dict_shapes.json").read_text())
    return {
        name: torch.from_numpy(_weight(name, tuple(shape)))
        for name, shape in shapes.items()
        if not name.startswith("backbone.classifier")
    }


def network_input(count: int, seed: int, size: int = 224) -> Tensor:
    """Smooth random images (count, 3, size, size), already normalised."""
    generator = np.random.default_rng(seed)
    low = torch.from_numpy(generator.standard_normal((count, 3, 8, 8)).astype(np.float32))
    smooth = F.interpolate(low, size=(size, size), mode="bicubic", align_corners=False)
    return smooth + torch.from_numpy(generator.standard_normal((count, 3, size, size)).astype(np.float32) * 0.1)


def _weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("bias"):
        return (generator.standard_normal(shape) * 0.05).astype(np.float32)
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else shape[0]
    values = generator.standard_normal(shape) * GAINS.get(name, 1.0) * np.sqrt(2.0 / max(fan_in, 1))
    return values.astype(np.float32)
