"""The network: what depends on the group, what the switches change, what training gives."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gconet.train.losses import (
    LossWeights,
    attention_loss,
    collaborating_loss,
    crossed_map_loss,
    gconet_losses,
    pixel_loss,
    soft_iou_loss,
)
from gconet.train.model import Architecture, EnlargedMaps, GCoNet, GroupAffinityModule, initialise, upsample

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def switched(architecture: Architecture, **switches: bool) -> GCoNet:
    """A seeded network with some modules switched off."""
    return initialise(GCoNet(dataclasses.replace(architecture, **switches)), seed=0).eval()


@torch.inference_mode()
def test_maps_have_the_size_of_the_images_and_lie_between_0_and_1(tiny_network: GCoNet) -> None:
    maps = tiny_network(IMAGES)
    assert maps.shape == (4, 1, 64, 64)
    assert 0 <= maps.min() < maps.max() <= 1


@torch.inference_mode()
def test_attention_of_every_photo_sums_to_one(tiny_network: GCoNet) -> None:
    attention, consensus = tiny_network.consensus(IMAGES)
    assert attention.shape == (4, 1, 4, 4)
    assert consensus.shape == (1, 16, 1, 1)
    torch.testing.assert_close(attention.sum(dim=(1, 2, 3)), torch.ones(4))


@torch.inference_mode()
def test_attention_follows_its_definition_pixel_by_pixel(tiny_network: GCoNet) -> None:
    """Section 3.2 written out: best match in each photo, mean over photos, softmax over the photo's own pixels."""
    gam = tiny_network.gam
    assert isinstance(gam, GroupAffinityModule)
    features = tiny_network.encoder(IMAGES[:2])[-1]
    query, key = gam.query(features), gam.key(features)
    agreement = torch.empty(2, 4, 4)
    for photo in range(2):
        for row in range(4):
            for column in range(4):
                pixel = query[photo, :, row, column]
                best = [(pixel[:, None, None] * key[other]).sum(0).max() for other in range(2)]
                agreement[photo, row, column] = sum(best) / 2 / 16**0.5
    expected = agreement.flatten(1).softmax(-1).view(2, 1, 4, 4)
    torch.testing.assert_close(gam(features).attention, expected)
    pooled = gam.output(features * expected).mean(dim=(0, 2, 3))
    torch.testing.assert_close(gam(features).consensus.flatten(), pooled)


@torch.inference_mode()
def test_order_of_the_group_does_not_matter_but_its_members_do(tiny_network: GCoNet) -> None:
    together = tiny_network(IMAGES)
    shuffled = tiny_network(IMAGES[[2, 0, 3, 1]])
    torch.testing.assert_close(shuffled, together[[2, 0, 3, 1]], atol=1e-5, rtol=0)
    assert (tiny_network(IMAGES[:2]) - together[:2]).abs().max() > 1e-3


@torch.inference_mode()
def test_baseline_pools_by_plain_average(tiny_network: GCoNet) -> None:
    baseline = switched(tiny_network.architecture, gam=False, gcm=False, acm=False)
    attention, consensus = baseline.consensus(IMAGES)
    torch.testing.assert_close(consensus.flatten(), baseline.encoder(IMAGES)[-1].mean(dim=(0, 2, 3)))
    torch.testing.assert_close(attention, torch.full((4, 1, 4, 4), 1 / 16))


@pytest.mark.parametrize(("gcm", "acm"), [(True, True), (True, False), (False, True), (False, False)])
@torch.inference_mode()
def test_training_outputs_follow_the_switches(tiny_network: GCoNet, gcm: bool, acm: bool) -> None:
    outputs = switched(tiny_network.architecture, gcm=gcm, acm=acm).training_outputs(IMAGES)
    assert [tuple(side.maps.shape) for side in outputs.sides] == [(4, 1, 64, 64)] * 4
    assert (outputs.crossed_logits is not None) == gcm
    assert (outputs.class_logits is not None) == acm
    if outputs.crossed_logits is not None:
        assert outputs.crossed_logits.shape == (8, 1, 64, 64)
    if outputs.class_logits is not None:
        assert outputs.class_logits.shape == (4, 5)


@torch.inference_mode()
def test_last_side_map_is_the_answer_for_each_of_the_two_groups(tiny_network: GCoNet) -> None:
    last = tiny_network.training_outputs(IMAGES).sides[-1].maps
    torch.testing.assert_close(last[:2], tiny_network(IMAGES[:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(last[2:], tiny_network(IMAGES[2:]), atol=1e-5, rtol=0)


def test_an_odd_number_of_training_images_is_refused(tiny_network: GCoNet) -> None:
    with pytest.raises(ValueError, match="two groups of equal size"):
        tiny_network.training_outputs(IMAGES[:3])


def test_the_total_loss_reaches_every_parameter(tiny_network: GCoNet) -> None:
    model = initialise(GCoNet(tiny_network.architecture), seed=3)
    truth = (IMAGES[:, :1] > 0).float()
    losses = gconet_losses(model.training_outputs(IMAGES), truth, torch.tensor([0, 0, 1, 1]), LossWeights())
    torch.testing.assert_close(losses.total, losses.saliency + losses.collaborating + losses.classification)
    losses.total.backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untouched == []


def test_soft_iou_is_zero_for_the_truth_itself_also_where_nothing_is_marked() -> None:
    truth = torch.zeros(2, 1, 8, 8)
    truth[0, :, 2:5, 2:5] = 1
    assert soft_iou_loss(truth, truth).item() == 0
    assert soft_iou_loss(1 - truth[:1], truth[:1]).item() == 1
    halves = torch.full((2, 1, 8, 8), 0.5)
    torch.testing.assert_close(soft_iou_loss(halves, truth, "mean"), soft_iou_loss(halves, truth, "sum") / 2)


def test_collaborating_loss_wants_nothing_from_crossed_pairs() -> None:
    truth = torch.ones(1, 1, 4, 4)
    right = torch.cat([torch.full((1, 1, 4, 4), 9.0), torch.full((1, 1, 4, 4), -9.0)])
    nothing = torch.zeros_like(truth)
    assert collaborating_loss(right, truth, nothing) < 1e-6
    assert collaborating_loss(-right, truth, nothing) > 8
    assert collaborating_loss(right, truth, truth) > 4
    assert collaborating_loss(right.abs(), truth, truth) < 1e-6


def test_pixel_loss_is_the_mean_cross_entropy_of_each_image() -> None:
    truth = torch.zeros(2, 1, 2, 2)
    truth[0, :, 0] = 1
    maps = torch.tensor([0.9, 0.5]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    each = -(math.log(0.9) + math.log(0.1)) / 2 - math.log(0.5)
    enlarged = EnlargedMaps(maps, 1 - maps)
    assert pixel_loss(enlarged, truth).item() == pytest.approx(each, rel=1e-6)
    assert pixel_loss(enlarged, truth, "mean").item() == pytest.approx(each / 2, rel=1e-6)
    assert pixel_loss(EnlargedMaps(truth, 1 - truth), truth).item() == 0


@pytest.mark.parametrize("sure", [1, 16, 24])
def test_pixels_that_are_wrong_and_sure_pull_no_harder_than_they_should(sure: float) -> None:
    """Against the plain form in float64; from float32 maps alone gradients were up to 40 000 times as large."""
    logits = sure + torch.rand(2, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    logits[1] *= -1
    truth = torch.zeros(2, 1, 28, 28)
    truth[1] = 1
    ours, plain = logits.clone().requires_grad_(), logits.double().requires_grad_()
    pixel_loss(EnlargedMaps.of(ours, truth.shape[2:]), truth).backward()
    maps = upsample(plain.sigmoid(), truth.shape[2:])
    wrong = torch.cat([maps[:1], 1 - maps[1:]])
    (-(1 - wrong).log().sum() / 28**2).backward()
    torch.testing.assert_close(ours.grad, plain.grad.float(), rtol=1e-4, atol=0)
    assert ours.grad.abs().sum() < 2.001  # at most 1 an image


def test_attention_loss_is_least_where_all_attention_is_on_the_object() -> None:
    truth = torch.zeros(3, 1, 8, 8)
    truth[0, :, :4, :4] = 1  # one of the four pixels of the features
    truth[1, :, :4, :2] = 1  # half of it
    on, uniform = torch.zeros(3, 1, 2, 2), torch.full((3, 1, 2, 2), 0.25)
    on[:, :, 0, 0] = 1
    assert attention_loss(on, truth).item() == 0
    assert attention_loss(uniform, truth).item() == pytest.approx(2 * math.log(4))
    assert attention_loss(uniform, truth, "mean").item() == pytest.approx(2 / 3 * math.log(4))
    elsewhere = (1 - on).requires_grad_()
    loss = attention_loss(elsewhere, truth)
    loss.backward()
    assert math.isfinite(loss.item())
    assert elsewhere.grad is not None
    assert elsewhere.grad.isfinite().all()


@pytest.mark.parametrize("gap", [5.0, 20.0, 80.0])
def test_attention_that_is_sure_and_wrong_has_its_gradient(gap: float) -> None:
    """Of a softmax over pixels, all but one of 16 of them far below: the wrong one goes down, the object's go up."""
    logits = torch.zeros(2, 16)
    logits[:, 5] = gap
    logits.requires_grad_()
    truth = torch.zeros(2, 1, 64, 64)
    truth[:, :, 48:, 48:] = 1  # the last pixel
    attention_loss(logits.softmax(dim=1).view(2, 1, 4, 4), truth).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[:, -1], torch.full((2,), -1.0), rtol=0.1, atol=0)
    torch.testing.assert_close(logits.grad[:, 5], torch.full((2,), 1.0), rtol=0.1, atol=0)


def test_the_attention_loss_reaches_the_affinity_and_not_the_decoder(tiny_network: GCoNet) -> None:
    model = initialise(GCoNet(tiny_network.architecture), seed=3)
    outputs = model.training_outputs(IMAGES)
    torch.testing.assert_close(outputs.attention.sum(dim=(2, 3)), torch.ones(4, 1))
    truth, labels = (IMAGES[:, :1] > 0).float(), torch.tensor([0, 0, 1, 1])
    without, with_it = (gconet_losses(outputs, truth, labels, LossWeights(attention=weight)) for weight in (0.0, 2.0))
    expected = 2 * attention_loss(outputs.attention, truth)
    torch.testing.assert_close(with_it.total - without.total, expected, rtol=1e-3, atol=0)
    expected.backward()
    assert model.gam.query.weight.grad.abs().sum() > 0
    assert model.decoder.top[0].weight.grad is None


def test_the_pixel_loss_counts_for_every_side_map(tiny_network: GCoNet) -> None:
    outputs = tiny_network.training_outputs(IMAGES)
    truth, labels = (IMAGES[:, :1] > 0).float(), torch.tensor([0, 0, 1, 1])
    without, with_it = (gconet_losses(outputs, truth, labels, LossWeights(pixel=weight)) for weight in (0.0, 2.0))
    expected = 2 * sum(pixel_loss(side, truth) for side in outputs.sides)
    torch.testing.assert_close(with_it.saliency - without.saliency, expected)
    torch.testing.assert_close(with_it.total - without.total, expected)


def test_crossed_maps_want_the_other_groups_object_or_nothing(tiny_network: GCoNet) -> None:
    outputs = tiny_network.training_outputs(IMAGES, finest=2, crossed=True)
    assert [side.maps.shape for side in outputs.sides] == [(4, 1, 64, 64)] * 3
    assert [side.maps.shape for side in outputs.crossed] == [(4, 1, 64, 64)] * 2
    swapped = tiny_network.training_outputs(IMAGES[[2, 3, 0, 1]], finest=3, crossed=True)
    torch.testing.assert_close(swapped.crossed[1].maps, outputs.crossed[1].maps[[2, 3, 0, 1]])
    truth = torch.zeros(4, 1, 64, 64)
    truth[0, :, :20] = 1
    exact = EnlargedMaps(truth, 1 - truth)
    for reduction in ("sum", "mean"):
        assert crossed_map_loss(exact, truth, reduction).item() == pytest.approx(0, abs=1e-6)
    wrong = EnlargedMaps(exact.maps[:1], exact.complement[:1])
    least = -math.log(torch.finfo(torch.float32).tiny)
    assert crossed_map_loss(wrong, truth[1:2]).item() == pytest.approx(least * 20 / 64)  # cross-entropy alone
    labels = torch.tensor([0, 0, 1, 1])
    without, with_it = (
        gconet_losses(outputs, truth, labels, LossWeights(crossed=weight), crossed_truth=truth) for weight in (0, 2)
    )
    expected = 2 * sum(crossed_map_loss(side, truth) for side in outputs.crossed)
    torch.testing.assert_close(with_it.total - without.total, expected)


@torch.inference_mode()
def test_coarse_maps_are_those_of_their_level(tiny_network: GCoNet) -> None:
    sides = tiny_network.training_outputs(torch.cat([IMAGES[:2]] * 2)).sides
    for level, side in zip((4, 3, 2, 1), sides, strict=True):
        torch.testing.assert_close(tiny_network.coarse_maps(IMAGES[:2], level), side.maps[:2], atol=1e-5, rtol=1e-4)


def test_initialisation_is_the_same_for_the_same_seed_only(tiny_network: GCoNet) -> None:
    first, second, other = (initialise(GCoNet(tiny_network.architecture), seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["encoder.conv1.conv1_1.weight"], other["encoder.conv1.conv1_1.weight"])
