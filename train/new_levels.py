"""Decoder levels that join a run: each starts by passing on what the level above it has made. Ours, not the paper's.

From random weights, a new level would begin with noise for a map, and the levels above would unlearn for its sake.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gconet.train.model import DecoderLevel, GCoNet, depthwise_correlation

MARGIN = 1.5  # features may come to lie so many times lower than those seen here, and still be passed on


@torch.no_grad()
def join_levels(model: GCoNet, images: Tensor, coarser: int, finest: int) -> None:
    """Make decoder levels `coarser` − 1 to `finest` pass on, in place, the enlarged features of level `coarser`.

    The ReLU within a level lets features pass unchanged if they are lifted above 0 before it and lowered after it. The
    map is read off as at level `coarser`: not quite the same at twice the resolution, as 3×3 filters see half as far.

    Parameters
    ----------
    images : (N, 3, H, W) of one group, by whose features the lift is measured.
    """
    features = model.encoder(images)
    correlated = depthwise_correlation(features[-1], model.gam(features[-1]).consensus)
    passed_on = model.decoder.pyramid(features, correlated, coarser)[-1]
    lift = -MARGIN * passed_on.amin(dim=(0, 2, 3)).clamp(max=0)
    for k in range(coarser - 1, finest - 1, -1):
        level, above = (cast(DecoderLevel, model.decoder.levels[str(number)]) for number in (k, k + 1))
        for layer, bias in ((level.fuse[0], lift), (level.fuse[-1], -lift)):
            weight, old_bias = layer.parameters()
            nn.init.dirac_(weight)
            old_bias.copy_(bias)
        for parameter in level.lateral[-1].parameters():
            nn.init.zeros_(parameter)
        level.side.load_state_dict(above.side.state_dict())
