"""Metrics against the evaluation toolbox's own figures, plain loops, the library, and values worked out by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gconet.bench.map_pairs import find_pairs, read_pair
from gconet.bench.metrics import (
    THRESHOLDS,
    FloatArray,
    Grey,
    area_under_roc,
    average_precision,
    count_pixels,
    mean_absolute_error,
    s_measure,
)
from gconet.bench.toolboxes import TOOLBOXES, Figures, eval_co_sod, load_toolbox, mean_figures, scores

KEYS_OF_THE_TOOLBOX = {"MAE": "mae", "MaxFm": "max_f", "MeanFm": "mean_f", "MaxEm": "max_e", "MeanEm": "mean_e",
                       "Sm": "s", "AP": "ap", "AUC": "auc"}  # fmt: skip
CURVES = ("precision", "recall", "false_positive_rate", "f", "e")


def grey(rows: list[list[int]]) -> Grey:
    return np.array(rows, np.uint8)


def blob(rng: np.random.Generator, height: int, width: int) -> tuple[Grey, Grey]:
    """A smooth random map and a mask it has to do with."""
    low = Image.fromarray(rng.integers(0, 256, (6, 8), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-40, 41, (height, width))
    saliency = np.asarray(low)
    return saliency, np.where(saliency + noise > 150, 255, 0).astype(np.uint8)


def curves_by_loop(saliency: Grey, truth: Grey) -> dict[str, FloatArray]:
    """One threshold after the other, pixel by pixel, straight from the definitions."""
    values, y = saliency / 255, truth / 255
    values = (values - values.min()) / (values.max() - values.min())
    curves: dict[str, list[float]] = {name: [] for name in CURVES}
    for threshold in THRESHOLDS:
        marked = (values >= threshold).astype(np.float64)
        precision = (marked * y).sum() / (marked.sum() or 1)
        recall = (marked * y).sum() / (y.sum() or 1)
        x, g = marked - marked.mean(), y - y.mean()
        alignment = 2 * x * g / (x * x + g * g + 1e-20)
        curves["precision"].append(precision)
        curves["recall"].append(recall)
        curves["false_positive_rate"].append((marked * (1 - y)).sum() / ((1 - y).sum() or 1))
        curves["f"].append(1.3 * precision * recall / ((0.3 * precision + recall) or 1))
        curves["e"].append(((alignment + 1) ** 2 / 4).sum() / (y.size - 1))
    return {name: np.array(curve) for name, curve in curves.items()}


def test_every_figure_of_the_evaluation_toolbox(shared: Path) -> None:
    folder = shared / "reference" / "toolbox"
    pairs = find_pairs(folder / "pred", folder / "gt")
    figures = [eval_co_sod(*read_pair(pair, resize=True)) for pair in pairs]
    ours = scores(mean_figures(figures))
    expected = json.loads((folder / "figures.json").read_text())
    assert set(expected) == set(KEYS_OF_THE_TOOLBOX)
    for key, value in expected.items():
        assert getattr(ours, KEYS_OF_THE_TOOLBOX[key]) == pytest.approx(value, abs=1e-6), key


@pytest.mark.parametrize("truth_kind", ["black and white", "soft", "empty", "full"])
def test_curves_equal_a_loop_over_thresholds(rng: np.random.Generator, truth_kind: str) -> None:
    saliency, mask = blob(rng, 37, 53)
    soft = np.asarray(Image.fromarray(mask).resize((11, 7)).resize((53, 37), Image.Resampling.BILINEAR))
    truth = {"black and white": mask, "soft": soft, "empty": mask * 0, "full": mask * 0 + 255}[truth_kind]
    figures = eval_co_sod(saliency, truth)
    for name, curve in curves_by_loop(saliency, truth).items():
        np.testing.assert_allclose(getattr(figures, name), curve, rtol=0, atol=1e-12, err_msg=name)


def test_curves_are_ten_times_faster_than_a_loop_of_counts(rng: np.random.Generator) -> None:
    saliency, truth = blob(rng, 480, 640)
    values = (saliency - float(saliency.min())) / float(saliency.max() - saliency.min())
    mask = truth > 127

    def loop() -> list[tuple[int, int]]:
        return [(np.count_nonzero((m := values >= t) & mask), np.count_nonzero(m)) for t in THRESHOLDS]

    def seconds(call: object) -> float:
        start = time.perf_counter()
        call()  # type: ignore[operator]
        return time.perf_counter() - start

    counts = count_pixels(saliency, truth)
    assert [(int(a), int(b)) for a, b in zip(counts.marked[-1], counts.marked.sum(axis=0), strict=True)] == loop()
    assert 10 * min(seconds(lambda: count_pixels(saliency, truth)) for _ in range(5)) < seconds(loop)


def test_every_value_of_a_map_of_four_pixels() -> None:
    figures = eval_co_sod(grey([[255, 255], [255, 0]]), grey([[255, 255], [0, 0]]))
    # Above threshold 0 the cut map is the map: two hits, one false alarm; means 3/4 and 1/2.
    assert figures.precision[0] == pytest.approx(0.5)
    assert figures.precision[1:] == pytest.approx(np.full(254, 2 / 3))
    assert figures.recall == pytest.approx(np.ones(255))
    assert figures.false_positive_rate == pytest.approx(np.r_[1, np.full(254, 0.5)])
    assert figures.f[1] == pytest.approx(1.3 * (2 / 3) / (0.3 * 2 / 3 + 1))
    hit, false_alarm = 2 * 0.25 * 0.5 / (0.25**2 + 0.5**2), -2 * 0.25 * 0.5 / (0.25**2 + 0.5**2)
    rejection = 2 * 0.75 * 0.5 / (0.75**2 + 0.5**2)
    enhanced = 2 * (1 + hit) ** 2 / 4 + (1 + false_alarm) ** 2 / 4 + (1 + rejection) ** 2 / 4
    assert figures.e[1] == pytest.approx(enhanced / 3)
    assert figures.e[0] == pytest.approx(4 * 0.25 / 3)  # an even map is aligned with nothing
    assert figures.mae == pytest.approx(0.25)
    # Objects: the marked half is 1 and even, the other has mean 1/2 and deviation 1/√2. The centre of gravity is row 0,
    # column 0.5 → 0 (half to even): one part is the whole picture, with covariance 1/6 and variances 1/4 and 1/3.
    objects = 0.5 * 1 + 0.5 * (2 * 0.5 / (0.25 + 1 + 0.5**0.5))
    region = 4 * 0.75 * 0.5 * (0.5 / 3) / ((0.75**2 + 0.5**2) * (0.75 / 3 + 1 / 3))
    assert figures.s == pytest.approx(0.5 * objects + 0.5 * region)


def test_a_perfect_map() -> None:
    truth = np.zeros((8, 10), np.uint8)
    truth[2:6, 3:8] = 255
    result = scores(eval_co_sod(truth, truth))
    assert (result.mae, result.s, result.max_f) == (0, pytest.approx(1), pytest.approx(1))
    assert result.max_e == pytest.approx(80 / 79)
    assert result.mean_f == pytest.approx((254 + 1.3 * 0.25 / (0.3 * 0.25 + 1)) / 255)  # threshold 0 marks everything
    assert result.mean_e == pytest.approx((254 + 0.25) / 255 * 80 / 79)
    assert (result.ap, result.auc) == (pytest.approx(1), pytest.approx(1))


def test_an_inverted_map() -> None:
    truth = np.zeros((8, 10), np.uint8)
    truth[2:6, 3:8] = 255
    figures = eval_co_sod(255 - truth, truth)
    result = scores(figures)
    assert (result.mae, result.s) == (1, 0)
    assert figures.f[1:].max() == 0
    assert figures.e[1:].max() == pytest.approx(0)
    assert result.ap == pytest.approx(0.25)  # all of the object is found only when everything is marked
    assert result.auc == pytest.approx(0)


def test_truths_without_object_or_without_background(rng: np.random.Generator) -> None:
    saliency, _ = blob(rng, 20, 20)
    stretched = (saliency - saliency.min()) / (saliency.max() - saliency.min())
    empty = eval_co_sod(saliency, np.zeros_like(saliency))
    assert empty.f.max() == empty.recall.max() == 0
    assert empty.e == pytest.approx(np.full(255, 0.25 * 400 / 399))
    assert empty.s == pytest.approx(1 - stretched.mean())
    full = eval_co_sod(saliency, np.full_like(saliency, 255))
    assert full.precision == pytest.approx(np.ones(255))
    assert full.e == pytest.approx(np.full(255, 0.25 * 400 / 399))
    assert full.s == pytest.approx(stretched.mean())
    assert full.mae == pytest.approx(1 - saliency.mean() / 255)


@pytest.mark.parametrize("value", [0, 90, 255])
def test_an_even_map_is_black_once_stretched_but_keeps_its_mean_error(value: int) -> None:
    truth = grey([[255, 255, 0, 0]] * 4)
    figures = eval_co_sod(np.full_like(truth, value), truth)
    assert figures.recall == pytest.approx(np.r_[1, np.zeros(254)])
    assert np.isfinite(figures.s)
    assert figures.mae == pytest.approx(0.5)


@pytest.mark.parametrize("where", [(0, 0), (0, 6), (4, 0), (4, 6), (2, 3)])
def test_s_measure_is_finite_for_a_single_pixel_anywhere(where: tuple[int, int]) -> None:
    mask = np.zeros((5, 7), bool)
    mask[where] = True
    assert s_measure(mask.astype(np.float32), mask) == pytest.approx(1)
    assert 0 <= s_measure(1 - mask.astype(np.float32), mask) <= 0.5  # four even parts, or one that is not


def test_mean_absolute_error_takes_float_maps() -> None:
    saliency = np.array([[0.25, 1.0]], np.float32)
    assert mean_absolute_error(saliency, np.array([[0.0, 1.0]], np.float32)) == pytest.approx(0.125)


def test_areas_of_known_curves() -> None:
    falling = np.array([1.0, 0.5, 0.25])
    assert average_precision(np.array([0.2, 0.6, 0.4]), falling) == pytest.approx(0.5 * 0.2 + 0.25 * 0.6 + 0.25 * 0.6)
    assert area_under_roc(np.array([1.0, 0.5, 0.0]), np.array([1.0, 0.5, 0.0])) == pytest.approx(0.5)
    assert area_under_roc(np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])) == pytest.approx(1)


def test_one_threshold_serves_all_maps() -> None:
    """The maximum of the mean curve, not the mean of maxima: no threshold is right for both of these maps."""
    truth = grey([[255, 255, 0, 0, 0]])
    bright = eval_co_sod(grey([[255, 255, 200, 200, 0]]), truth)  # perfect above 200, half of it false alarms below
    dim = eval_co_sod(grey([[255, 60, 0, 0, 0]]), truth)  # perfect up to 60, half of the object missed above
    assert scores(bright).max_f == scores(dim).max_f == pytest.approx(1)
    both = scores(mean_figures([bright, dim]))
    assert both.max_f == pytest.approx((1 + 1.3 * 0.5 / (0.3 + 0.5)) / 2)  # above 200: precision 1, recall 1 and 1/2
    assert both.max_e < (scores(bright).max_e + scores(dim).max_e) / 2 - 0.05


def test_mean_figures_weigh_maps_alike(rng: np.random.Generator) -> None:
    figures = [eval_co_sod(*blob(rng, 12, 15)) for _ in range(3)]
    mean = mean_figures(figures)
    assert mean.mae == pytest.approx(sum(one.mae for one in figures) / 3)
    for name in CURVES:
        assert getattr(mean, name).shape == (255,)
    np.testing.assert_allclose(mean.e, sum(one.e for one in figures) / 3)


def library_figures(pairs: list[tuple[Grey, Grey]]) -> Figures:
    """The library called directly, over a whole data set."""
    library = pytest.importorskip("py_sod_metrics")
    handlers = {"f": library.FmeasureHandler, "precision": library.PrecisionHandler, "recall": library.RecallHandler,
                "false_positive_rate": library.FPRHandler}  # fmt: skip
    curves = library.FmeasureV2({name: handler(True, False) for name, handler in handlers.items()})
    mae, s, e = library.MAE(), library.Smeasure(), library.Emeasure()
    for saliency, truth in pairs:
        for metric in (mae, s, e, curves):
            metric.step(pred=saliency, gt=truth)
    return Figures(
        mae=mae.get_results()["mae"],
        s=s.get_results()["sm"],
        e=np.flip(e.get_results()["em"]["curve"]),
        **{name: np.flip(curves.get_results()[name]["dynamic"]) for name in handlers},
    )


def test_adapter_equals_the_library_called_directly(rng: np.random.Generator) -> None:
    pytest.importorskip("py_sod_metrics")
    pairs = [blob(rng, height, 31) for height in (20, 33, 47)]
    pairs += [(pairs[0][0], pairs[0][1] * 0), (pairs[1][0], pairs[1][1] * 0 + 255)]
    toolbox = load_toolbox("pysodmetrics")
    expected, ours = library_figures(pairs), mean_figures([toolbox.measure(*pair) for pair in pairs])
    assert (ours.mae, ours.s) == (pytest.approx(expected.mae), pytest.approx(expected.s))
    for name in CURVES:
        np.testing.assert_allclose(getattr(ours, name), getattr(expected, name), rtol=0, atol=1e-12, err_msg=name)
    assert scores(ours).max_f == pytest.approx(expected.f.max())
    assert len(toolbox.thresholds) == len(ours.f) == 256
    assert (np.diff(ours.recall) <= 0).all()  # curves are over rising thresholds


def test_conventions_agree_on_ordinary_maps(rng: np.random.Generator) -> None:
    pytest.importorskip("py_sod_metrics")
    saliency, truth = blob(rng, 120, 160)
    saliency = saliency - saliency.min()
    saliency = (saliency * (255 / saliency.max())).round().astype(np.uint8)
    ours, library = (scores(load_toolbox(name).measure(saliency, truth)) for name in TOOLBOXES)
    for name in ("mae", "max_f", "mean_f", "max_e", "mean_e", "s", "ap", "auc"):
        assert getattr(ours, name) == pytest.approx(getattr(library, name), abs=0.01), name
