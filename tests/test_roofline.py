"""Counting a group's arithmetic, the machine's limits, shares of them, and the projection to another card."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TINY, TINY_SIZE
from torch.utils.flop_counter import FlopCounterMode

from gconet.bench import roofline
from gconet.bench.flops import Form, LayerCost, count_layers, total_flop
from gconet.bench.projection import PAPERS_CLASS, Card, project_ms
from gconet.bench.roofline import Rate, Roofline, least_ms, measure_roofline, share_of
from gconet.bench.roofline_products import COPY_BYTES, Prepared, Product, cpu_copies, cpu_products
from gconet.export.inference import InferenceNetwork
from gconet.train.model import Architecture, GCoNet

PAPERS = dataclasses.asdict(Architecture())
LAYERS = [LayerCost("arithmetic", 2_000_000_000, 1000), LayerCost("memory", 1000, 500_000_000)]
MACHINE = Roofline({"fp32": Rate(100.0, "tests"), "int8": Rate(400.0, "tests")}, copy_gb_per_s=10.0)


def test_layers_of_the_papers_network_equal_counts_by_hand() -> None:
    layers = {layer.name: layer for layer in count_layers(PAPERS, 224, 2, "reference")}
    assert layers["conv1_1"].flop == 2 * (3 * 64 * 9) * 224 * 224 * 2
    assert layers["conv4_1"].flop == 2 * (256 * 512 * 9) * 28 * 28 * 2
    assert layers["gam key"].flop == 2 * 512 * 512 * 14 * 14 * 2
    assert layers["affinity"].flop == 2 * 512 * (2 * 14 * 14) ** 2
    assert layers["latlayer3 first"].flop == 2 * (256 * 64 * 9) * 56 * 56 * 2
    assert layers["dslayer1 map"].flop == 2 * 64 * 224 * 224 * 2
    assert layers["conv1_1"].values == (3 + 64) * 224 * 224 * 2 + 3 * 64 * 9
    assert layers["affinity"].values == 2 * 512 * 392 + 392 * 392


def test_a_pair_costs_about_120_gflop_and_the_inference_form_less() -> None:
    reference, inference = (total_flop(count_layers(PAPERS, 224, 2, form)) for form in ("reference", "inference"))
    assert reference == pytest.approx(120e9, rel=0.02)
    assert 0 < reference - inference < 0.01 * reference
    saved = 2 * 2 * 196 * 512 * 512 * 2  # two projections of every pixel
    added = 2 * 2 * 196 * 512 + 2 * 512 * 512  # a bias of every pixel, one projection of the group
    assert reference - inference == saved - added


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("form", ["reference", "inference"])
@pytest.mark.parametrize("gam", [True, False])
@torch.inference_mode()
def test_counts_equal_pytorchs_own(form: Form, group: int, gam: bool) -> None:
    architecture = dataclasses.replace(TINY, gam=gam)
    model = GCoNet(architecture).eval()
    network = model if form == "reference" else InferenceNetwork(model)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(group, 3, TINY_SIZE, TINY_SIZE))
    mine = total_flop(count_layers(dataclasses.asdict(architecture), TINY_SIZE, group, form))
    elementwise = 2 * TINY.feature_channels**2 if form == "inference" and gam else 0  # a product without a matmul
    assert mine - elementwise == counter.get_total_flops()


def test_the_least_time_takes_the_slower_limit_of_every_layer() -> None:
    # 2 GFLOP at 100 GFLOP/s are 20 ms; 2 GB at 10 GB/s are 200 ms.
    assert least_ms(LAYERS, 100.0, 10.0, 4) == pytest.approx(220)
    assert least_ms(LAYERS, 100.0, 10.0, 2) == pytest.approx(120)


def test_shares_of_known_numbers() -> None:
    share = share_of(LAYERS, 440.0, "fp32", MACHINE)
    assert share is not None
    assert share.gflops == pytest.approx(2.000001 / 0.44)
    assert share.share_of_peak == pytest.approx(2.000001 / 0.44 / 100)
    assert share.least_ms == pytest.approx(220)
    assert share.share_of_roofline == pytest.approx(0.5)
    assert share_of(LAYERS, 440.0, "bf16", MACHINE) is None


def test_the_projection_keeps_the_share_of_the_roofline() -> None:
    share = share_of(LAYERS, 440.0, "fp32", MACHINE)
    assert share is not None
    assert project_ms(LAYERS, "fp32", share, Card("twice", 0.2, 20.0)) == pytest.approx(220)
    # 2 GFLOP at 11.3 TFLOP/s and 2 GB at 484 GB/s, both at a half.
    assert project_ms(LAYERS, "fp32", share) == pytest.approx(2 * (2 / 11.3 + 2000 / 484))
    assert (PAPERS_CLASS.tflops, PAPERS_CLASS.gb_per_s) == (11.3, 484)


def test_the_best_of_all_ways_and_sizes_is_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"slow": 2.0, "fast": 0.5, "copy": 0.25, "slow copy": 1.0}
    monkeypatch.setattr(roofline, "_shortest_s", lambda call: seconds[call()])

    def prepare(*names: str) -> Iterator[Prepared]:
        for name in names:
            yield name, 10**9, lambda name=name: name

    found = measure_roofline(
        [Product("one", "fp32", lambda: prepare("slow")), Product("two", "fp32", lambda: prepare("fast", "slow"))],
        [(10**9, lambda: "slow copy"), (10**9, lambda: "copy")],
    )
    assert found == Roofline({"fp32": Rate(2.0, "two, fast")}, 4.0)


def test_what_is_emulated_is_measured_at_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = iter([0.0, 5.0, *range(10, 30)])  # the product, then the copy
    monkeypatch.setattr(roofline, "time", SimpleNamespace(perf_counter=lambda: next(clock)))

    def prepare() -> Iterator[Prepared]:
        for name in ("small", "large"):
            yield name, 10**9, lambda name=name: calls.append(name)

    found = measure_roofline([Product("one", "bf16", prepare)], [(1, lambda: None)])
    assert found.rates == {"bf16": Rate(0.2, "one, small")}
    assert calls == ["small"]


def test_every_way_to_multiply_runs_and_counts_its_operations() -> None:
    products = cpu_products(1)
    assert {"numpy", "PyTorch", "OpenVINO"} == {product.by for product in products}
    for product in products:
        label, flop, call = next(product.prepare())
        assert (label, flop) == ("matrices of 512", 2 * 512**3)
        call()


def test_without_libraries_numpy_still_gives_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    assert [(product.by, product.precision) for product in cpu_products(None)] == [("numpy", "fp32")]
    assert len(list(cpu_copies(None))) == 1


def test_copies_read_and_write_the_whole_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    from gconet.bench import roofline_products

    monkeypatch.setattr(roofline_products, "COPY_BYTES", 4096)
    assert COPY_BYTES > 100 * 2**20
    copied: list[Any] = [(size, call) for size, call in cpu_copies(1)]
    assert [size for size, _ in copied] == [8192, 8192]
    for _, call in copied:
        call()


def test_roofline_shares_of_the_real_network_are_finite_at_any_group() -> None:
    for group in (1, 40):
        share = share_of(count_layers(PAPERS, 224, group, "inference"), 1.0, "int8", MACHINE)
        assert share is not None
        assert all(math.isfinite(value) and value > 0 for value in dataclasses.astuple(share))
