"""Parity statistics and latency reports: what they say, and that they fail when they must."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY

from gconet.bench import latency, parity
from gconet.bench.parity import compare, measure_parity
from gconet.bench.photo_groups import EXAMPLES, extend_photos, find_group, read_group
from gconet.bench.reference import eager_maps, reference_network
from gconet.bench.tolerances import TOLERANCES, Tolerance, tolerance
from gconet.engines.registry import TARGETS, get_target
from gconet.export import typed_parity
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import run
from gconet.runtime.errors import CheckpointError, UsageError
from gconet.runtime.photos import read_photo
from gconet.runtime.preprocess import Photo
from gconet.runtime.session import SESSIONS, open_session
from gconet.train.checkpoint import random_checkpoint
from gconet.train.model import GCoNet

STRICT = Tolerance(1e-4, 1e-5, 0.999, "tests")
BundleMaker = Callable[[str, str], Path]


def test_statistics_of_a_known_difference() -> None:
    reference = np.zeros((1, 1, 2, 2), np.float32)
    reference[0, 0] = [[1, 1], [0, 0]]
    maps = reference.copy()
    maps[0, 0, 0, 1] = 0.25
    row = compare(reference, maps, STRICT)
    assert (row.group, row.max_abs, row.mean_abs, row.mask_iou) == (1, 0.75, 0.1875, 0.5)
    assert row.cosine == pytest.approx(1.25 / (2**0.5 * (1 + 0.0625) ** 0.5))
    assert not row.passed
    assert compare(reference, reference, STRICT).passed
    assert compare(np.zeros_like(maps), np.zeros_like(maps), STRICT).mask_iou == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_single_bad_value_fails_parity(bad: float) -> None:
    reference = np.full((2, 1, 8, 8), 0.3, np.float32)
    maps = reference.copy()
    maps[1, 0, 3, 3] = bad
    row = compare(reference, maps, Tolerance(None, 1.0, 0.0, "tests"))
    assert not row.finite
    assert not row.passed


def test_every_engine_the_runtime_runs_has_a_tolerance_with_a_reason() -> None:
    for target in SESSIONS:
        for precision in get_target(target).precisions:
            assert tolerance(target, precision).reason
    assert {target for target, _ in TOLERANCES} == {*TARGETS, typed_parity.TARGET}
    with pytest.raises(UsageError, match=r"bench/tolerances\.py"):
        tolerance("openvino", "fp8")


@pytest.mark.parametrize(("target", "precision"), [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")])
def test_engines_keep_parity_up_to_their_largest_group(
    tiny_bundle: BundleMaker, tiny_network: GCoNet, example_photos: list[Photo], target: str, precision: str
) -> None:
    if precision not in (get_target(target).preferred_precision(), "fp32"):
        pytest.skip(f"this CPU has no {precision} instructions")
    bundle = open_bundle(tiny_bundle(target, precision))
    session = open_session(bundle, "auto", None)
    rows = measure_parity(session, bundle.manifest, tiny_network, example_photos, lambda _: None)
    assert [row.group for row in rows] == [1, 2, 4]
    assert all(row.passed for row in rows), rows


def test_another_networks_engine_fails_parity(tiny_bundle: BundleMaker, example_photos: list[Photo]) -> None:
    bundle = open_bundle(tiny_bundle("onnxruntime", "fp32"))
    stranger = random_checkpoint(seed=99, architecture=TINY).network()
    session = open_session(bundle, "auto", None)
    assert not any(row.passed for row in measure_parity(session, bundle.manifest, stranger, example_photos, print))


@torch.inference_mode()
def test_reference_in_blocks_equals_the_network_in_one_call(tiny_network: GCoNet, rng: np.random.Generator) -> None:
    images = rng.standard_normal((19, 3, 64, 64), np.float32)
    whole = tiny_network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(eager_maps(tiny_network, images), whole, rtol=0, atol=2e-6)


def test_too_few_photos_come_again_in_other_positions(example_photos: list[Photo]) -> None:
    group = extend_photos(example_photos[:2], 7)
    assert len(group) == 7
    assert np.array_equal(group[2], example_photos[0][:, ::-1])
    assert not any(np.array_equal(group[0], other) for other in group[1:])


def test_engines_are_compared_on_photos_of_one_group_the_largest(tmp_path: Path) -> None:
    assert {photo.parent for photo in find_group(None)} == {EXAMPLES / "apple"}  # of groups alike, the first
    cars = sorted((EXAMPLES / "car").glob("*.jpg"))
    for name, photos in {"a few": cars[:2], "most": cars[2:], "one": cars[:1]}.items():
        (tmp_path / name).mkdir()
        for photo in photos:
            (tmp_path / name / photo.name).symlink_to(photo)
    assert [photo.name for photo in find_group(tmp_path)] == [photo.name for photo in cars[2:]]
    assert np.array_equal(read_group(tmp_path)[0], read_photo(cars[2]))


def test_reference_wants_the_checkpoint_the_bundle_was_built_from(tiny_bundle: BundleMaker, tmp_path: Path) -> None:
    manifest = open_bundle(tiny_bundle("onnxruntime", "fp32")).manifest
    with pytest.raises(CheckpointError, match="--checkpoint"):
        reference_network(manifest, None)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        reference_network(manifest, tmp_path / "absent.safetensors")


def test_latency_report_has_the_promised_keys_and_gates_on_the_budget(
    tiny_bundle: BundleMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = [str(tiny_bundle("onnxruntime", "fp32")), str(tiny_bundle("openvino", "fp32"))]
    report = tmp_path / "deep" / "latency.json"
    arguments = ["--bundle", bundles[0], "--bundle", bundles[1], "--group", "1", "--group", "2", "--rounds", "3"]
    arguments += ["--no-eager", "--no-roofline", "--json", str(report)]
    assert run(latency.main, [*arguments, "--budget-ms", "100000"]) == 0
    document = json.loads(report.read_text())
    assert [(row["target"], row["group"]) for row in document["rows"]] == [
        ("onnxruntime", 1), ("openvino", 1), ("onnxruntime", 2), ("openvino", 2),
    ]  # fmt: skip
    for row in document["rows"]:
        assert {"engine", "target", "precision", "group", "p50_ms", "p90_ms", "p99_ms", "images_per_s"} < row.keys()
        assert row["p50_ms"] == pytest.approx(np.median(row["samples_ms"]))
        assert row["images_per_s"] == pytest.approx(row["group"] * 1000 / row["p50_ms"])
        assert row["peak_rss_mb"] > 20
    assert document["environment"]["cpu"]

    assert run(latency.main, [*arguments, "--budget-ms", "0.000001"]) == 1
    assert "over budget" in capsys.readouterr().out


def test_latency_refuses_groups_a_bundle_was_not_verified_for(
    tiny_bundle: BundleMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(tiny_bundle("onnxruntime", "fp32"))
    assert run(latency.main, ["--bundle", bundle, "--group", "5", "--no-eager"]) == 2
    assert run(latency.main, ["--bundle", bundle, "--bundle", bundle, "--no-eager"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_parity_command_needs_the_checkpoint(tiny_bundle: BundleMaker, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parity.main, ["--bundle", str(tiny_bundle("onnxruntime", "fp32"))]) == 2
    assert "--checkpoint" in capsys.readouterr().err
