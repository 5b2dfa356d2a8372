"""Training from statistics: encoder layers of unit size, a GAM that finds what a group shares before it has learned."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from shapes import make_data

from gconet.train.config import TrainingConfig
from gconet.train.groups import LabelledGroup, read_groups
from gconet.train.informed_start import set_up_gam, start_informed
from gconet.train.model import Architecture, GCoNet, GroupAffinityModule, initialise
from gconet.train.pairs import PairDataset

SMALL = Architecture(encoder_channels=(8, 12, 16, 24, 32), decoder_channels=12)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledGroup]:
    return read_groups(make_data(tmp_path_factory.mktemp("shapes")))


@pytest.fixture
def config() -> TrainingConfig:
    return TrainingConfig(Path(), Path(), architecture=SMALL, group_size=2, sizes=(32, 64), levels=(3, 1))


def test_the_encoder_stays_the_same_function_at_unit_size(groups: list[LabelledGroup], config: TrainingConfig) -> None:
    model = initialise(GCoNet(SMALL), seed=1)
    before = copy.deepcopy(model)
    start_informed(model, groups, config, steps=3)
    images = torch.cat([PairDataset(groups, dataclasses.replace(config, sizes=(64,)), 3)[i].images for i in range(3)])
    with torch.inference_mode():
        for ours, theirs in zip(model.encoder(images), before.encoder(images), strict=True):
            assert ours.square().mean().sqrt().item() == pytest.approx(1, rel=1e-3)
            torch.testing.assert_close(ours, theirs / theirs.square().mean().sqrt(), rtol=1e-3, atol=1e-4)


def test_a_network_without_gam_gets_its_encoder_scaled_only(
    groups: list[LabelledGroup], config: TrainingConfig
) -> None:
    model = initialise(GCoNet(dataclasses.replace(SMALL, gam=False)), seed=1)
    before = copy.deepcopy(model.state_dict())
    start_informed(model, groups, config, steps=2)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("encoder.") for name in changed)


@torch.no_grad()
def test_an_informed_gam_attends_to_what_the_photos_share() -> None:
    """Eight pixels of each photo are of one thing; things differ in other channels than backgrounds do, as much."""
    generator = torch.Generator().manual_seed(0)
    groups, objects = [], []
    for _ in range(30):
        features = torch.randn(4, 32, 25, generator=generator)
        features[:, :10] *= 3
        places = torch.randperm(25, generator=generator)[:8]
        features[:, :, places] = torch.randn(4, 32, 8, generator=generator)
        features[:, 20:, places] += 3 * torch.randn(12, 1, generator=generator)
        covered = torch.zeros(4, 1, 25)
        covered[:, :, places] = 1
        groups.append(features.relu().view(4, 32, 5, 5))
        objects.append(covered.view(4, 1, 5, 5))
    ordinary = initialise(GCoNet(SMALL), seed=1).gam
    assert isinstance(ordinary, GroupAffinityModule)
    informed, without_masks = copy.deepcopy(ordinary), copy.deepcopy(ordinary)
    set_up_gam(informed, groups[:20], objects[:20])
    set_up_gam(without_masks, groups[:20], [torch.zeros_like(covered) for covered in objects[:20]])

    def share(gam: GroupAffinityModule) -> float:
        on_object = [(gam(g).attention * o).sum() / 4 for g, o in zip(groups[20:], objects[20:], strict=True)]
        return float(torch.stack(on_object).mean())

    assert share(ordinary) < 0.5
    assert 0.8 < share(without_masks) < 0.9
    assert share(informed) > 0.95
    entropies = torch.cat([-(a * a.log()).sum(1) for a in (informed(g).attention.flatten(1) for g in groups[:20])])
    assert entropies.exp().mean().item() == pytest.approx(0.2 * 25, rel=0.02)


@torch.no_grad()
def test_an_informed_consensus_is_the_mean_feature_and_what_sets_the_group_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = [torch.randn(4, 32, 5, 5, generator=generator).relu() for _ in range(20)]
    gam = GroupAffinityModule(32)
    set_up_gam(gam, groups, [torch.zeros(4, 1, 5, 5)] * 20)
    averages, attended, consensus = (
        torch.stack(rows)
        for rows in zip(*(
            (g.mean(dim=(0, 2, 3)), (g * gam(g).attention).mean(dim=(0, 2, 3)), gam(g).consensus.flatten())
            for g in groups
        ), strict=True)
    )  # fmt: skip
    torch.testing.assert_close(consensus.mean(dim=0), averages.mean(dim=0))
    apart = attended - attended.mean(dim=0)
    scale = averages.square().mean().sqrt() / attended.square().mean().sqrt()
    torch.testing.assert_close(consensus - consensus.mean(dim=0), scale * apart)
