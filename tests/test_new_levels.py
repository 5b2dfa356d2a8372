"""Decoder levels that join a run: they pass on what is above them, and learn from there."""

from __future__ import annotations

import pytest
import torch

from gconet.train.losses import pixel_loss
from gconet.train.model import GCoNet, depthwise_correlation, initialise, upsample
from gconet.train.new_levels import join_levels

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tiny_network: GCoNet) -> GCoNet:
    """A network that tests may change."""
    return initialise(GCoNet(tiny_network.architecture), seed=4)


def _pyramid(model: GCoNet, images: torch.Tensor) -> list[torch.Tensor]:
    features = model.encoder(images)
    return model.decoder.pyramid(features, depthwise_correlation(features[-1], model.gam(features[-1]).consensus))


@torch.inference_mode()
def test_new_levels_pass_on_what_is_above_them(model: GCoNet) -> None:
    before = _pyramid(model, IMAGES)
    join_levels(model, IMAGES, coarser=3, finest=1)
    _, level3, level2, level1 = _pyramid(model, IMAGES)
    torch.testing.assert_close(level3, before[1], rtol=0, atol=0)
    assert level3.min() < 0  # which a ReLU would not let pass
    torch.testing.assert_close(level2, upsample(level3, level2.shape[2:]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(level1, upsample(level2, level1.shape[2:]), rtol=1e-4, atol=1e-4)
    heads = [dict(model.decoder.levels[k].side.named_parameters()) for k in "321"]
    assert all(torch.equal(heads[0][name], head[name]) for head in heads for name in head)


def test_new_levels_learn_from_there(model: GCoNet) -> None:
    join_levels(model, IMAGES, coarser=3, finest=1)
    images = torch.cat([IMAGES[:2]] * 2)
    truth = torch.zeros(4, 1, 64, 64)
    truth[:, :, 10:40, 20:50] = 1
    learning = [*model.decoder.levels["2"].parameters(), *model.decoder.levels["1"].parameters()]
    optimizer = torch.optim.Adam(learning, lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = pixel_loss(model.training_outputs(images).sides[-1], truth)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    for parameter in model.decoder.levels["1"].lateral.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
