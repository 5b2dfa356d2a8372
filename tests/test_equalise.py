"""Equalisation: the same function to the bit, and every activation where half precision wants it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import TINY_SIZE

from gconet.export.equalise import (
    AFFINITY,
    CORRELATED,
    HALF_MAX,
    LARGEST_WANTED,
    DomainRange,
    domains,
    equalise,
    measure_ranges,
    power_of_two_towards,
)
from gconet.export.inference import InferenceNetwork
from gconet.runtime.preprocess import FloatArray, Photo, Preprocessing, to_input
from gconet.train.model import Architecture, GCoNet, initialise


@pytest.fixture(scope="module")
def groups(example_photos: list[Photo]) -> list[FloatArray]:
    """Two groups of three photos as inputs of the tiny network."""
    return [to_input(example_photos[start : start + 3], Preprocessing(TINY_SIZE)) for start in (0, 5)]


@pytest.fixture(scope="module", params=[True, False], ids=["gam", "baseline"])
def network(request: pytest.FixtureRequest, tiny_network: GCoNet) -> InferenceNetwork:
    """The tiny network's inference form, and that of one without GAM; not to be altered."""
    if request.param:
        return InferenceNetwork(copy.deepcopy(tiny_network))
    widths = tiny_network.architecture.encoder_channels
    return InferenceNetwork(initialise(GCoNet(Architecture(gam=False, encoder_channels=widths, decoder_channels=4)), 0))


@pytest.mark.parametrize(
    ("largest", "factor"),
    [(256.0, 1.0), (257.0, 0.5), (128.0, 2.0), (129.0, 1.0), (1e-3, 2.0**17), (2e4, 2.0**-7), (0, 1)],
)
def test_factors_are_powers_of_two_that_stay_within_the_limit(largest: float, factor: float) -> None:
    assert power_of_two_towards(LARGEST_WANTED, largest) == factor


@torch.inference_mode()
def test_an_equalised_network_gives_the_same_bits(network: InferenceNetwork, groups: list[FloatArray]) -> None:
    equalised = copy.deepcopy(network)
    found = equalise(equalised, groups[:1])
    assert sum(entry.factor != 1 for entry in found) > 10
    for images in map(torch.from_numpy, groups):
        assert torch.equal(equalised(images), network(images))


def test_equalising_twice_changes_nothing(network: InferenceNetwork, groups: list[FloatArray]) -> None:
    equalised = copy.deepcopy(network)
    first = equalise(equalised, groups)
    again = equalise(equalised, groups)
    assert {entry.factor for entry in again} == {1.0}
    for before, after in zip(first, again, strict=True):
        assert after.largest == pytest.approx(before.largest * before.factor, rel=1e-6)


def test_every_convolution_is_brought_near_the_wanted_size(network: InferenceNetwork, groups: list[FloatArray]) -> None:
    equalised = copy.deepcopy(network)
    found = equalise(equalised, groups)
    after = measure_ranges(equalised, groups)
    for domain in domains(network):
        largest = max(after[name] for name in (*domain.layers, *(f"into {name}" for name in domain.readers)))
        assert LARGEST_WANTED / 2 < largest <= LARGEST_WANTED, domain
    assert LARGEST_WANTED / 2 < after["into decoder.top.0"] <= LARGEST_WANTED
    named = {name for entry in found for name in entry.layers}
    layers = {name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d)}
    unscaled = {"decoder.levels.1.side.4"}  # the logits
    side_heads = {name for name in layers if ".side." in name and ".1." not in name}
    gam = {name for name in layers if name.startswith("gam.")}
    assert layers - side_heads - gam - unscaled == named - {CORRELATED, AFFINITY}
    assert (AFFINITY in named) == bool(gam)


def test_head_room_is_counted_to_the_largest_half(network: InferenceNetwork, groups: list[FloatArray]) -> None:
    found = equalise(copy.deepcopy(network), groups)
    rooms = [entry.head_room for entry in found if entry.layers != (AFFINITY,)]
    assert min(rooms) >= HALF_MAX / LARGEST_WANTED
    assert max(rooms) < 2 * HALF_MAX / LARGEST_WANTED
    assert DomainRange(("x",), 2.0, 4.0).head_room == HALF_MAX / 8
    assert math.isinf(DomainRange(("x",), 0.0, 1.0).head_room)


@torch.inference_mode()
def test_the_measured_affinity_is_the_largest_there_is(tiny_network: GCoNet, groups: list[FloatArray]) -> None:
    network = InferenceNetwork(copy.deepcopy(tiny_network))
    features = network.encoder(torch.from_numpy(groups[0]))[-1]
    query, key = network.gam.query(features), features
    largest = torch.einsum("ncij,mckl->nijmkl", query, key).abs().max().item()
    assert measure_ranges(network, groups[:1])[AFFINITY] == pytest.approx(largest, rel=1e-5)
