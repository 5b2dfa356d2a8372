"""Cut-outs of photos whose objects are known: sharper than the map, soft at the border, safe at every size."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from synthetic_objects import GROUND, OBJECT, Mask, ellipses, iou, map_of, photo_of

import gconet.runtime as gr
from gconet.runtime import cutout_border, grabcut
from gconet.runtime.composition import own_colours
from gconet.runtime.cutout import compose, cutout, rgba
from gconet.runtime.cutout_border import guided_filter, soft_border
from gconet.runtime.errors import PhotoError, TargetError, UsageError
from gconet.runtime.preprocess import FloatArray, Photo
from gconet.runtime.saliency_level import THRESHOLDS, Threshold, saliency_level

cv2 = pytest.importorskip("cv2", reason="cut-outs need OpenCV: pip install 'gconet-deploy[pictures]'")


@pytest.fixture
def mask() -> Mask:
    return ellipses(240, 320, (0.5, 0.5, 0.25, 0.3))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_cutout_follows_the_photo_where_the_map_is_blurred_and_beside_it(mask: Mask, threshold: Threshold) -> None:
    photo, saliency = photo_of(mask), map_of(mask, 10, (4, -5))
    alpha = cutout(photo, saliency, threshold=threshold)
    assert alpha is not None
    level = saliency_level(saliency, threshold)
    assert level is not None
    assert iou(alpha >= 128, mask) > 0.98 > 0.9 > iou(saliency >= level, mask)


def test_alpha_is_opaque_inside_transparent_outside_and_soft_only_along_the_border(mask: Mask) -> None:
    alpha = cutout(photo_of(mask), map_of(mask))
    assert alpha is not None
    assert (alpha.dtype, alpha.shape) == (np.uint8, mask.shape)
    away = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    away += cv2.distanceTransform(1 - mask.astype(np.uint8), cv2.DIST_L2, 5)
    assert (alpha[mask & (away > 8)] == 255).all()
    assert (alpha[~mask & (away > 8)] == 0).all()


def test_a_photo_larger_than_the_working_copy_is_cut_at_its_own_pixels() -> None:
    mask = ellipses(1500, 2000, (0.4, 0.5, 0.2, 0.3))
    alpha = cutout(photo_of(mask), map_of(mask, 40, (20, -15)))
    assert alpha is not None
    assert alpha.shape == mask.shape
    assert iou(alpha >= 128, mask) > 0.99  # a border one pixel of the working copy off would be 0.986


def test_the_same_photo_and_map_give_the_same_cutout(mask: Mask) -> None:
    photo, saliency = photo_of(mask, noise=40), map_of(mask)
    first = cutout(photo, saliency)
    cv2.setRNGSeed(123)
    again = cutout(photo, saliency)
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("value", [0.0, 0.05])
def test_nothing_is_found_in_a_dark_map(mask: Mask, value: float) -> None:
    assert cutout(photo_of(mask), np.full(mask.shape, value, np.float32)) is None


def test_a_spot_that_no_copy_shows_is_nothing() -> None:
    saliency = np.zeros((1500, 2000), np.float32)
    saliency[700, 900] = 1
    assert cutout(np.full((1500, 2000, 3), 90, np.uint8), saliency) is None


@pytest.mark.parametrize(
    ("size", "least"),
    [((8, 40_000), 0.99), ((40_000, 8), 0.99), ((5, 65_535), 0.5)],  # the last in two rows of the reduced copy
)
def test_photos_longer_than_opencv_warps_are_cut(size: tuple[int, int], least: float) -> None:
    mask = ellipses(*size, (0.5, 0.5, 0.25, 0.3))
    alpha = cutout(photo_of(mask), map_of(mask, 1))
    assert alpha is not None
    assert alpha.shape == size
    assert iou(alpha >= 128, mask) > least


@pytest.mark.parametrize("value", [0.2, 1.0])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_map_that_is_the_same_all_over_keeps_the_whole_photo(mask: Mask, value: float, threshold: Threshold) -> None:
    alpha = cutout(photo_of(mask), np.full(mask.shape, value, np.float32), threshold=threshold)
    assert alpha is not None
    assert (alpha == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2), (3, 700), (5, 5)])
@pytest.mark.parametrize("kind", ["half", "dark", "full", "random"])
def test_the_smallest_and_thinnest_photos_are_cut(size: tuple[int, int], kind: str, rng: np.random.Generator) -> None:
    photo = rng.integers(0, 256, (*size, 3), np.uint8)
    saliency = {
        "half": np.linspace(1, 0, photo[..., 0].size, dtype=np.float32).reshape(size),
        "dark": np.zeros(size, np.float32),
        "full": np.ones(size, np.float32),
        "random": rng.random(size, np.float32) * 0.5 + 0.5,
    }[kind]
    alpha = cutout(photo, saliency)
    if kind == "dark":
        assert alpha is None
    else:
        assert alpha is not None
        assert (alpha.dtype, alpha.shape) == (np.uint8, size)
        assert rgba(photo, alpha).shape == (*size, 4)
        assert compose(photo, alpha, photo).shape == photo.shape


def test_a_photo_of_one_colour_keeps_what_the_map_says(mask: Mask) -> None:
    photo = np.full((*mask.shape, 3), 90, np.uint8)
    alpha = cutout(photo, map_of(mask))
    assert alpha is not None
    assert iou(alpha >= 128, mask) > 0.7


def test_a_result_that_strays_from_the_map_is_dropped_for_the_map(mask: Mask, monkeypatch: pytest.MonkeyPatch) -> None:
    def stray(_: Photo, seeds: Mask, *__: object) -> None:
        seeds[:] = cv2.GC_BGD
        seeds[:20] = cv2.GC_FGD

    monkeypatch.setattr(cv2, "grabCut", stray)
    photo, saliency = photo_of(mask), map_of(mask)
    np.testing.assert_array_equal(grabcut.grab(photo, saliency, 0.5), saliency >= 0.5)


def test_the_guided_filter_is_the_plain_one(rng: np.random.Generator) -> None:
    photo, values, radius, epsilon = (
        rng.integers(0, 256, (20, 24, 3), np.uint8),
        rng.random((20, 24), np.float32),
        3,
        1e-2,
    )
    functions = guided_filter(photo, values, radius, epsilon)
    guide = photo.astype(np.float64) / 255
    plain = np.empty((*values.shape, 4))
    window = 2 * radius + 1
    padded_guide = np.pad(guide, ((radius,) * 2, (radius,) * 2, (0, 0)), "symmetric")
    padded_values = np.pad(values, radius, "symmetric").astype(np.float64)
    for row, column in np.ndindex(values.shape):
        colours = padded_guide[row : row + window, column : column + window].reshape(-1, 3)
        wanted = padded_values[row : row + window, column : column + window].ravel()
        centred = colours - colours.mean(0)
        slope = np.linalg.solve(
            centred.T @ centred / window**2 + epsilon * np.eye(3), centred.T @ (wanted - wanted.mean()) / window**2
        )
        plain[row, column] = [*slope, wanted.mean() - slope @ colours.mean(0)]
    padded = np.pad(plain, ((radius,) * 2, (radius,) * 2, (0, 0)), "symmetric")
    mean = np.lib.stride_tricks.sliding_window_view(padded, (window, window), (0, 1)).mean((-1, -2))
    np.testing.assert_allclose(functions, mean, atol=2e-4)


def test_strips_join_without_a_seam(mask: Mask, monkeypatch: pytest.MonkeyPatch) -> None:
    large = mask.repeat(3, 0).repeat(3, 1)
    photo, small = photo_of(large), photo_of(mask)
    whole = soft_border(photo, small, mask.astype(np.uint8))
    monkeypatch.setattr(cutout_border, "STRIP", 17)
    np.testing.assert_allclose(soft_border(photo, small, mask.astype(np.uint8)).astype(int), whole.astype(int), atol=1)


def test_otsus_threshold_lies_between_two_heaps(rng: np.random.Generator) -> None:
    values = np.concatenate([rng.normal(0.2, 0.03, 4000), rng.normal(0.7, 0.03, 1000)]).clip(0, 1)
    level = saliency_level(values.reshape(50, 100).astype(np.float32), "otsu")
    assert level is not None
    assert 0.3 < level < 0.6


def test_otsus_threshold_counts_what_rounding_lifts_above_one() -> None:
    saliency = np.zeros((30, 30), np.float32)
    saliency[:10], saliency[10:20] = 1, 0.3
    lifted = np.where(saliency == 1, np.nextafter(np.float32(1), np.float32(2)), saliency)
    assert saliency_level(lifted, "otsu") == pytest.approx(saliency_level(saliency, "otsu"))


def test_twice_the_mean_is_held_below_the_maps_maximum() -> None:
    saliency = np.full((10, 10), 0.6, np.float32)
    saliency[:3] = 0.8
    assert saliency_level(saliency) == pytest.approx(0.72)
    saliency[:] = 0
    saliency[0, :5] = 0.8
    assert saliency_level(saliency) == pytest.approx(0.08)
    saliency[:2] = 0.8
    assert saliency_level(saliency) == pytest.approx(0.32)


def test_transparent_pictures_hold_nothing_of_the_background(mask: Mask) -> None:
    photo = photo_of(mask)
    alpha = np.where(mask, 255, 0).astype(np.uint8)
    picture = rgba(photo, alpha)
    assert (picture.dtype, picture.shape) == (np.uint8, (*mask.shape, 4))
    assert (picture[~mask] == 0).all()
    np.testing.assert_array_equal(picture[mask], np.dstack([photo, alpha])[mask])


def test_a_soft_border_takes_the_objects_colour_not_the_backgrounds() -> None:
    share = np.clip((np.arange(120) - 57) / 6, 0, 1)  # object on the right, mixed over six pixels
    alpha = np.rint(np.tile(share, (60, 1)) * 255).astype(np.uint8)
    weight = alpha[..., None] / 255
    photo = np.rint(weight * OBJECT + (1 - weight) * np.array(GROUND)).astype(np.uint8)
    colours = own_colours(photo, alpha)
    soft = (alpha > 60) & (alpha < 255)
    assert np.abs(colours[soft].astype(int) - OBJECT).max() <= 24
    assert np.abs(photo[soft].astype(int) - OBJECT).max() > 90
    white = compose(photo, alpha, (255, 255, 255))
    exact = weight * OBJECT + (1 - weight) * 255
    assert np.abs(white - exact).max() <= 12
    assert np.abs(weight * photo + (1 - weight) * 255 - exact).max() > 24  # what a rim of the old background would be


def test_a_picture_behind_covers_the_photo_in_its_own_proportions(rng: np.random.Generator) -> None:
    photo, nothing = np.zeros((40, 80, 3), np.uint8), np.zeros((40, 80), np.uint8)
    behind = np.zeros((100, 100, 3), np.uint8)
    behind[25:75] = rng.integers(0, 256, 3)  # the middle half is all that a picture twice as wide as high shows
    np.testing.assert_array_equal(compose(photo, nothing, behind), np.broadcast_to(behind[50, 50], photo.shape))
    np.testing.assert_array_equal(compose(photo, nothing, (7, 8, 9)), np.broadcast_to(np.uint8([7, 8, 9]), photo.shape))
    np.testing.assert_array_equal(compose(photo, np.full_like(nothing, 255), behind), photo)


def bad_map(kind: str) -> FloatArray:
    saliency = np.ones((4, 5), np.float32)
    if kind == "nan":
        saliency[0, 0] = np.nan
    return {
        "bytes": np.ones((4, 5), np.uint8),
        "three axes": saliency[None],
        "empty": saliency[:0],
        "above one": saliency * 255,
        "negative": -saliency,
    }.get(kind, saliency)


@pytest.mark.parametrize("kind", ["bytes", "three axes", "empty", "above one", "negative", "nan"])
def test_what_is_no_map_is_said_so(kind: str) -> None:
    with pytest.raises(PhotoError, match="a map"):
        cutout(np.zeros((4, 5, 3), np.uint8), bad_map(kind))


@pytest.mark.parametrize(
    "photo",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 3)), np.zeros((0, 5, 3), np.uint8)],
)
def test_what_is_no_photo_is_said_so(photo: Photo) -> None:
    with pytest.raises(PhotoError, match="an \\(H, W, 3\\) uint8 RGB array"):
        cutout(photo, np.ones((4, 5), np.float32))


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    photo, saliency = np.zeros((4, 5, 3), np.uint8), np.ones((5, 4), np.float32)
    with pytest.raises(UsageError, match="4×5 pixels, its photo 5×4"):
        cutout(photo, saliency)
    with pytest.raises(UsageError, match="its own"):
        rgba(photo, np.zeros((5, 4), np.uint8))
    with pytest.raises(PhotoError, match="alpha"):
        rgba(photo, np.zeros((4, 5)))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no threshold"):
        cutout(photo, saliency.T, threshold="median")  # type: ignore[arg-type]
    for background in [(1, 2), (1, 2, 256), (1.0, 2.0, 3.0)]:
        with pytest.raises(UsageError, match="no colour"):
            compose(photo, np.zeros((4, 5), np.uint8), background)  # type: ignore[arg-type]


def test_without_opencv_the_extra_is_named(mask: Mask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(TargetError, match=r"pip install 'gconet-deploy\[pictures\]'"):
        cutout(photo_of(mask), map_of(mask))


def test_the_names_are_modules_whoever_imports_them_first() -> None:
    assert gr.cutout is sys.modules["gconet.runtime.cutout"]
    assert gr.thumbnail is sys.modules["gconet.runtime.thumbnail"]
    assert {"cutout", "thumbnail"} <= set(dir(gr))
    assert gr.cutout.cutout is cutout
