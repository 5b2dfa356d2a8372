"""Every rewrite of the exported network against its plain form."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gconet.export.inference import FoldedAffinity, InferenceNetwork, merge_projections
from gconet.export.operators import depthwise_correlation, group_affinity
from gconet.runtime.preprocess import Photo, Preprocessing, to_input
from gconet.train.model import Architecture, GCoNet, GroupAffinityModule, initialise


@pytest.fixture
def gam() -> GroupAffinityModule:
    """An affinity module in float64 with all biases set, so that only the algebra is judged."""
    module = GroupAffinityModule(16).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return module


def features(photos: int, seed: int = 1) -> torch.Tensor:
    """Random features (photos, 16, 6, 5): height and width differ so that swapping them shows."""
    return torch.randn(photos, 16, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_merged_projections_give_every_affinity_up_to_the_constant_the_softmax_drops(gam: GroupAffinityModule) -> None:
    x = features(3)
    query, key = (layer(x).transpose(0, 1).flatten(1) for layer in (gam.query, gam.key))  # C, N·h·w
    plain = query.T @ key / 16**0.5
    weight, bias, pixel_weight = merge_projections(gam)
    raw = x.transpose(0, 1).flatten(1)
    merged = (weight @ raw + bias[:, None]).T @ raw + (pixel_weight @ raw)[:, None]
    constant = plain - merged
    torch.testing.assert_close(constant, torch.full_like(constant, constant[0, 0].item()))


@pytest.mark.parametrize("photos", [1, 2, 5])
@torch.inference_mode()
def test_folded_affinity_equals_the_module(gam: GroupAffinityModule, photos: int) -> None:
    x = features(photos)
    plain, folded = gam(x), FoldedAffinity(gam).double()(x)
    torch.testing.assert_close(folded.attention, plain.attention, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(folded.consensus, plain.consensus, rtol=1e-5, atol=1e-7)


@torch.inference_mode()
def test_group_affinity_operator_equals_its_definition() -> None:
    query, key, bias = features(3, 1), features(3, 2), features(3, 3)[:, :1]
    affinity = torch.einsum("ncp,mcq->npmq", query.flatten(2), key.flatten(2))
    expected = (affinity.amax(-1).mean(-1) + bias.flatten(1)).softmax(-1).view_as(bias)
    torch.testing.assert_close(group_affinity(query, key, bias), expected)


@torch.inference_mode()
def test_depthwise_correlation_operator_equals_a_depthwise_convolution() -> None:
    x, consensus = features(2), features(1, 4).mean(dim=(2, 3), keepdim=True)
    expected = F.conv2d(x, consensus.view(16, 1, 1, 1), groups=16)
    torch.testing.assert_close(depthwise_correlation(x, consensus), expected)


@pytest.mark.parametrize("use_gam", [True, False])
@torch.inference_mode()
def test_inference_network_equals_the_network(tiny_network: GCoNet, use_gam: bool) -> None:
    architecture = Architecture(
        gam=use_gam, encoder_channels=tiny_network.architecture.encoder_channels, decoder_channels=4, classes=5
    )
    model = tiny_network if use_gam else initialise(GCoNet(architecture), seed=0).eval()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = copy.deepcopy(model).double()  # so that only the algebra is judged; the maps are float32 at the end
    torch.testing.assert_close(InferenceNetwork(model)(images), model(images).float(), rtol=0, atol=1e-7)


def test_inference_network_keeps_only_what_the_answer_needs(tiny_network: GCoNet) -> None:
    model = copy.deepcopy(tiny_network)
    images = torch.randn(2, 3, 64, 64)
    InferenceNetwork(model)(images).sum().backward()
    unused = {name.rpartition(".")[0] for name, parameter in model.named_parameters() if parameter.grad is None}
    side_heads = {f"decoder.levels.{k}.side.{index}" for k in (2, 3, 4) for index in (0, 2, 4)}
    assert unused == {"gcm.0", "gcm.2", "acm", "gam.query", "gam.key", "gam.output", *side_heads}


@torch.inference_mode()
def test_full_size_inference_network_equals_the_network_on_photos(example_photos: list[Photo]) -> None:
    model = initialise(GCoNet(), seed=0).eval()
    images = torch.from_numpy(to_input(example_photos[:3], Preprocessing()))
    assert (InferenceNetwork(model)(images) - model(images)).abs().max() < 2e-5
