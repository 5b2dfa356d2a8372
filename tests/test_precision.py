"""Half precision by construction, run in true half arithmetic on the CPU, beside the naive cast that fails."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from conftest import TINY_SIZE
from torch import Tensor, nn

from gconet.bench.parity import compare
from gconet.bench.tolerances import Tolerance
from gconet.export.audit import audit_graph
from gconet.export.equalise import AFFINITY, DomainRange
from gconet.export.inference import InferenceNetwork
from gconet.export.precision import ISLANDS, islands, lower
from gconet.export.to_onnx import export_detect
from gconet.export.wide_accumulation import WideAccumulation, accumulate_widely
from gconet.runtime.preprocess import FloatArray, Photo, Preprocessing, to_input
from gconet.train.checkpoint import SHIPPED, load_checkpoint
from gconet.train.model import GCoNet

RAW_LARGEST = 2e4  # what the raw activations of the hard checkpoint reach
HALF = Tolerance(None, 2e-3, 0.995, "what half precision must keep to")


@pytest.fixture(scope="module")
def groups(example_photos: list[Photo]) -> list[FloatArray]:
    """Two groups of three photos as inputs of the tiny network."""
    return [to_input(example_photos[start : start + 3], Preprocessing(TINY_SIZE)) for start in (0, 5)]


def with_large_activations(model: GCoNet, images: FloatArray) -> GCoNet:
    """A copy whose encoder is scaled up so that its last features reach `RAW_LARGEST` on a group of inputs."""
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        factor = RAW_LARGEST / model.encoder(torch.from_numpy(images))[-1].max()
        layers = [layer for layer in scaled.encoder.modules() if isinstance(layer, nn.Conv2d)]
        layers[0].weight *= factor
        for layer in layers:
            assert layer.bias is not None
            layer.bias *= factor
    return scaled


def naive_cast(model: GCoNet) -> InferenceNetwork:
    """Half precision without equalisation and islands."""
    return InferenceNetwork(copy.deepcopy(model)).half()


def lowered(model: GCoNet, precision: str, groups: list[FloatArray]) -> InferenceNetwork:
    """The typed network, calibrated on groups."""
    network = InferenceNetwork(copy.deepcopy(model))
    lower(network, precision, groups)
    return network


@torch.inference_mode()
def maps(network: nn.Module, images: FloatArray) -> FloatArray:
    """Maps of a group."""
    output: Tensor = network(torch.from_numpy(images))
    assert output.dtype == torch.float32
    return output.numpy()


@pytest.mark.parametrize("large", [False, True], ids=["usual", "large activations"])
def test_half_precision_keeps_parity_where_the_naive_cast_does_not(
    tiny_network: GCoNet, groups: list[FloatArray], large: bool
) -> None:
    model = with_large_activations(tiny_network, groups[1]) if large else tiny_network
    reference = maps(model, groups[0])
    assert compare(reference, maps(lowered(model, "fp16", groups[1:]), groups[0]), HALF).passed
    if large:
        naive = compare(reference, maps(naive_cast(model), groups[0]), HALF)
        assert not naive.finite


@pytest.mark.slow
def test_real_network_in_half_precision_with_large_activations(example_photos: list[Photo]) -> None:
    """The demo weights, scaled up; true half arithmetic on photos that were not in the calibration."""
    preprocessing = Preprocessing(112)
    calibration, images = (to_input(example_photos[part], preprocessing) for part in (slice(5, 10), slice(0, 2)))
    model = with_large_activations(load_checkpoint(SHIPPED), calibration)
    reference = maps(model, images)
    row = compare(reference, maps(lowered(model, "fp16", [calibration]), images), HALF)
    assert row.passed, row
    # One photo is enough to see it fail, and half the time.
    assert not compare(reference[:1], maps(naive_cast(model), images[:1]), HALF).finite


def test_photos_ten_times_stronger_than_the_calibration_do_not_overflow(
    tiny_network: GCoNet, groups: list[FloatArray]
) -> None:
    network = lowered(tiny_network, "fp16", groups[1:])
    assert compare(maps(tiny_network, groups[0] * 10), maps(network, groups[0] * 10), HALF).finite


def test_bfloat16_has_the_same_range_as_float32_and_fewer_digits(
    tiny_network: GCoNet, groups: list[FloatArray]
) -> None:
    reference = maps(tiny_network, groups[0])
    rows = [
        compare(reference, maps(lowered(tiny_network, precision, groups[1:]), groups[0]), HALF)
        for precision in ("fp16", "bf16")
    ]
    assert rows[0].mean_abs < rows[1].mean_abs < 2e-2
    assert all(row.finite for row in rows)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_only_islands_stay_in_float32(tiny_network: GCoNet, groups: list[FloatArray], precision: str) -> None:
    network = InferenceNetwork(copy.deepcopy(tiny_network))
    found = lower(network, precision, groups)
    exact = [name for name, parameter in network.named_parameters() if parameter.dtype == torch.float32]
    kept = {name.rpartition(".")[0].removesuffix(".layer") for name in exact}
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert kept == set(islands(dtype, found))
    weight = network.get_parameter("gam.output.weight")
    assert not torch.equal(weight, weight.to(dtype).float()), "an island's weights went through the narrow type"


@pytest.mark.parametrize(("affinity", "dtype", "island"), [
    (100.0, torch.float16, False), (110.0, torch.float16, True), (10.0, torch.bfloat16, False),
    (20.0, torch.bfloat16, True),
])  # fmt: skip
def test_the_affinity_is_an_island_where_rounding_would_move_the_attention(
    affinity: float, dtype: torch.dtype, island: bool
) -> None:
    found = [DomainRange((AFFINITY,), affinity, 1.0)]
    assert ("gam.query" in islands(dtype, found)) == island
    assert not any(name.startswith("gam.") for name in islands(dtype, []))


def test_every_island_has_a_reason_and_exists(tiny_network: GCoNet) -> None:
    network = InferenceNetwork(copy.deepcopy(tiny_network))
    for island in ISLANDS:
        assert len(island.reason) > 30
        assert all(network.get_submodule(module) for module in island.modules)


def test_convolutions_summed_in_float32_agree_with_the_cpus_own(tiny_network: GCoNet, groups: list[FloatArray]) -> None:
    plain = lowered(tiny_network, "fp16", groups[1:])
    wide = copy.deepcopy(plain)
    accumulate_widely(wide)
    replaced = [layer for layer in wide.modules() if isinstance(layer, WideAccumulation)]
    assert len(replaced) == 13 + 2 + 4 * 4 + 2 + 3 * 3  # encoder, top, levels, level-1 head, unused heads
    reference = maps(tiny_network, groups[0])
    first, second = (compare(reference, maps(network, groups[0]), HALF) for network in (plain, wide))
    assert second.mean_abs < 2 * first.mean_abs
    assert torch.isinf(replaced[0](torch.full((1, 3, 8, 8), 6e4).half())).any()


def test_audit_of_a_half_graph(tiny_network: GCoNet, groups: list[FloatArray]) -> None:
    half = audit_graph(export_detect(tiny_network, TINY_SIZE, "fp16", groups))
    assert set(half.operations) == {"fp16", "fp32"}
    first = half.casts[0]
    assert first.startswith("images: fp32 → fp16")
    assert 3 <= len(half.casts) <= 6
    full = audit_graph(export_detect(tiny_network, TINY_SIZE))
    assert full.share("fp32") == 1
    assert full.casts == ()
    # What one photo costs, counted by hand for the first layer.
    assert sum(full.operations.values()) == sum(half.operations.values())
    assert sum(full.operations.values()) > 2 * 3 * 9 * 4 * TINY_SIZE**2


def test_a_bfloat16_graph_passes_the_checker_at_the_opset_that_has_it(
    tiny_network: GCoNet, groups: list[FloatArray]
) -> None:
    graph = export_detect(tiny_network, TINY_SIZE, "bf16", groups)
    assert {entry.domain: entry.version for entry in graph.opset_import}[""] == 22
    assert audit_graph(graph).share("bf16") > 0.5


def test_full_width_is_half_in_all_but_a_thousandth(tiny_network: GCoNet) -> None:
    """Shapes alone decide the share, so untrained weights will do."""
    widths = (64, 128, 256, 512, 512)
    model = GCoNet(dataclasses.replace(tiny_network.architecture, encoder_channels=widths, decoder_channels=64))
    photos = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    assert audit_graph(export_detect(model, 32, "fp16", [photos])).share("fp16") > 0.99
