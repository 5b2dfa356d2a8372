"""Parity of maps and of scores: every statistic by hand, one reference for all bundles, and the pictures."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_SIZE
from PIL import Image
from shapes import make_data
from tqdm import tqdm

from gconet.bench import parity_groups
from gconet.bench.parity_accuracy import (
    MetricParity,
    TruthGroup,
    eager_figures,
    find_truth_groups,
    judge,
    measure_metric_parity,
    metric_table,
)
from gconet.bench.parity_groups import ComparedPhoto, EagerReference, compare_groups
from gconet.bench.parity_pictures import draw_worst
from gconet.bench.parity_statistics import compare, decibels, parity_document
from gconet.bench.reference import eager_maps
from gconet.bench.tolerances import METRIC_TOLERANCES, MetricTolerance, Tolerance, metric_tolerance
from gconet.bench.toolboxes import Figures, Scores
from gconet.engines.registry import TARGETS, get_target
from gconet.runtime.bundle import Bundle
from gconet.runtime.detector import Detector
from gconet.runtime.errors import PhotoError, UsageError
from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import FloatArray, Photo, Preprocessing
from gconet.runtime.session import Session, Tensors
from gconet.train.model import GCoNet

ANY = Tolerance(None, 1.0, 0.0, "tests")
LIMITS = MetricTolerance(mae=0.003, max_f=0.005, max_e=0.005, s=0.005, reason="tests")
LOOSE = MetricTolerance(mae=1, max_f=1, max_e=1, s=1, reason="tests")
SCORES = Scores(mae=0.1, max_f=0.8, mean_f=0.7, max_e=0.9, mean_e=0.8, s=0.75, ap=0.8, auc=0.9)


class EagerSession:
    """An engine that is the network itself, with something done to its maps."""

    max_group: int | None = None

    def __init__(self, model: GCoNet, change: float = 0.0) -> None:
        self.model = model
        self.change = np.float32(change)

    def infer(self, inputs: Tensors) -> Tensors:
        return {"maps": eager_maps(self.model, inputs["images"]) + self.change}


def bundle_of(target: str = "onnxruntime", max_group: int = 3) -> Bundle:
    manifest = Manifest(target, "fp32", "1", Preprocessing(TINY_SIZE), max_group, {}, {}, {}, 18, "2026-01-01")
    return Bundle(Path("test.gconet"), manifest)


def test_l2_and_sqnr_by_hand() -> None:
    reference = np.array([0.6, 0.8, 0, 0], np.float32).reshape(1, 1, 2, 2)  # ‖·‖ = 1
    maps = reference + np.array([0, 0, 0.06, 0.08], np.float32).reshape(1, 1, 2, 2)  # ‖·‖ of the difference = 0.1
    row = compare(reference, maps, ANY)
    assert row.l2 == pytest.approx(0.1)
    assert row.sqnr_db == pytest.approx(20)
    assert row.cosine == pytest.approx(1 / math.sqrt(1.01))
    same = compare(reference, reference, ANY)
    assert (same.l2, same.sqnr_db, same.max_abs) == (0, None, 0)


def test_decibels_of_what_has_none() -> None:
    assert decibels(10, 1) == pytest.approx(20)
    assert [decibels(1, 0), decibels(0, 1), decibels(1, math.nan), decibels(math.inf, 1)] == [None] * 4


def test_worst_photo_is_the_one_with_the_largest_mean_difference() -> None:
    reference = np.zeros((3, 1, 2, 2), np.float32)
    maps = reference.copy()
    maps[0, 0, 0, 0] = 1.0  # mean 0.25
    maps[2] = 0.5
    assert compare(reference, maps, ANY).worst_photo == 2
    maps[1, 0, 1, 1] = np.nan
    assert compare(reference, maps, ANY).worst_photo == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_report_of_bad_values_is_still_json(bad: float) -> None:
    maps = np.full((1, 1, 2, 2), bad, np.float32)
    document = parity_document([compare(np.ones_like(maps), maps, ANY)], ANY)
    assert json.loads(json.dumps(document, allow_nan=False))["rows"][0]["max_abs"] is None
    assert document["passed"] is False


def test_the_eager_network_runs_once_for_all_bundles(
    tiny_network: GCoNet, example_photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    def counted(model: GCoNet, images: FloatArray) -> FloatArray:
        runs.append(len(images))
        return eager_maps(model, images)

    monkeypatch.setattr(parity_groups, "eager_maps", counted)
    reference = EagerReference(tiny_network, example_photos[:2])
    manifest = bundle_of(max_group=6).manifest
    for change in (0.0, 0.25):
        results = list(compare_groups(EagerSession(tiny_network, change), manifest, reference, lambda _: None))
        assert [row.group for row, _ in results] == [1, 2, 5, 6]
        assert all(row.mean_abs == pytest.approx(change) for row, _ in results)
        assert all(row.passed == (change == 0) for row, _ in results)
    assert runs == [1, 2, 5, 6]
    row, worst = results[3]
    assert (worst.group, worst.index) == (6, row.worst_photo)
    assert np.array_equal(worst.photo, reference.group(6)[worst.index])
    assert worst.mean_abs == pytest.approx(0.25)


def test_pictures_show_both_maps_and_where_they_differ() -> None:
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    engine = ramp.copy()
    engine[0, 3] += 0.5
    engine[3, 0] -= 0.25
    engine[1, 1] = np.nan
    photo = ComparedPhoto(1, 0, np.full((8, 8, 3), (200, 10, 90), np.uint8), ramp, engine)
    shown, wanted, found, difference = draw_worst(photo)
    with Image.open(io.BytesIO(shown.png)) as image:
        assert image.size == (4, 4)
        assert image.getpixel((2, 2)) == (200, 10, 90)
    assert np.array_equal(pixels(wanted.png), (ramp * 255).astype(np.uint8))
    assert pixels(found.png)[0, 3] == int(np.float32(0.7) * 255)
    assert pixels(found.png)[1, 1] == 0
    stretched = pixels(difference.png)
    assert (stretched[0, 3], stretched[3, 0], stretched[1, 1], stretched[2, 2]) == (255, 127, 255, 0)
    assert difference.caption == "|difference|, white is 0.5; not finite, white too: 1 pixels"
    assert photo.mean_abs == math.inf


def pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "L"
        return np.asarray(image)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def truth_groups(labelled: Path) -> list[TruthGroup]:
    return find_truth_groups(labelled / "images", labelled / "gts")


def test_groups_are_whole_and_every_photo_has_its_truth(truth_groups: list[TruthGroup]) -> None:
    assert [len(group.photos) for group in truth_groups] == [4, 4, 4]
    for group in truth_groups:
        for photo, truth in zip(group.photos, group.truths, strict=True):
            assert (photo.parent.name, photo.stem) == (truth.parent.name, truth.stem)


@pytest.fixture(scope="module")
def figures(tiny_network: GCoNet, truth_groups: list[TruthGroup]) -> list[Figures]:
    with tqdm(disable=True) as progress:
        return eager_figures(tiny_network, Preprocessing(TINY_SIZE), truth_groups, progress)


def score(session: Session, figures: list[Figures], groups: list[TruthGroup]) -> MetricParity:
    with tqdm(disable=True) as progress:
        return measure_metric_parity(Detector(bundle_of(), session), figures, groups, LIMITS, progress)


def test_identical_maps_have_identical_scores(
    tiny_network: GCoNet, figures: list[Figures], truth_groups: list[TruthGroup]
) -> None:
    parity = score(EagerSession(tiny_network), figures, truth_groups)
    assert (parity.groups, parity.photos) == (3, 12)
    assert parity.deltas == {"mae": 0, "max_f": 0, "max_e": 0, "s": 0}
    assert parity.passed
    assert parity.reference == parity.engine


def test_other_maps_have_other_scores(
    tiny_network: GCoNet, figures: list[Figures], truth_groups: list[TruthGroup]
) -> None:
    darker = score(EagerSession(tiny_network, change=-0.1), figures, truth_groups)
    assert darker.deltas["mae"] == darker.engine.mae - darker.reference.mae != 0
    assert not darker.passed


def test_a_map_that_is_not_finite_fails_whatever_it_scores(figures: list[Figures], tmp_path: Path) -> None:
    class Broken:
        max_group: int | None = None

        def infer(self, inputs: Tensors) -> Tensors:
            return {"maps": np.full((len(inputs["images"]), 1, TINY_SIZE, TINY_SIZE), np.nan, np.float32)}

    pictures = [tmp_path / f"{name}.png" for name in ("photo", "truth")]
    for path in pictures:
        Image.new("RGB", (8, 8)).save(path)
    black = [TruthGroup((pictures[0],), (pictures[1],))]  # a NaN is scored as 0, and so is right by chance
    with tqdm(disable=True) as progress:
        right = measure_metric_parity(Detector(bundle_of(), Broken()), figures[:1], black, LOOSE, progress)
    assert right.engine.mae == 0
    assert not right.passed


def test_the_last_bit_of_a_sure_map_does_not_move_scores(
    tiny_network: GCoNet, figures: list[Figures], truth_groups: list[TruthGroup]
) -> None:
    class Sure:
        max_group: int | None = None

        def __init__(self, largest: float) -> None:
            self.largest = np.float32(largest)

        def infer(self, inputs: Tensors) -> Tensors:
            return {"maps": np.where(eager_maps(tiny_network, inputs["images"]) > 0.5, self.largest, np.float32(0))}

    below = float(np.nextafter(np.float32(1), np.float32(0)))
    white, nearly = (score(Sure(largest), figures, truth_groups) for largest in (1.0, below))
    assert white.engine == nearly.engine


def test_deltas_are_engine_minus_eager_and_each_is_judged() -> None:
    close = judge(SCORES, dataclasses.replace(SCORES, mae=0.1025, s=0.7455, ap=0.1), LIMITS, 2, 9)
    assert close.deltas == pytest.approx({"mae": 0.0025, "max_f": 0, "max_e": 0, "s": -0.0045})
    assert close.passed
    for name in ("mae", "max_f", "max_e", "s"):
        far = judge(SCORES, dataclasses.replace(SCORES, **{name: getattr(SCORES, name) - 0.006}), LIMITS, 2, 9)
        assert not far.passed
        assert metric_table(far, LIMITS).count("outside the tolerance") == 1


def test_every_precision_of_every_target_has_limits_on_scores() -> None:
    for target in TARGETS:
        for precision in get_target(target).precisions:
            assert metric_tolerance(precision).reason
    int8 = METRIC_TOLERANCES["int8"]
    assert (int8.mae, int8.s) == (0.003, 0.005)
    with pytest.raises(UsageError, match=r"bench/tolerances\.py"):
        metric_tolerance("fp8")


def test_photos_without_a_truth_are_named(labelled: Path, tmp_path: Path) -> None:
    truths = tmp_path / "gts"
    (truths / "toys" / "disc").mkdir(parents=True)
    Image.new("L", (4, 4)).save(truths / "toys" / "disc" / "0.png")
    with pytest.raises(UsageError, match=r"toys/disc/1, .*and 6 more: it must mirror"):
        find_truth_groups(labelled / "images", truths)
    with pytest.raises(PhotoError, match="no photo"):
        find_truth_groups(labelled / "images", tmp_path / "absent")
