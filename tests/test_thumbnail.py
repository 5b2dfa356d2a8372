"""Thumbnails of maps whose objects are known: shape, bounds, whole objects, one scale."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_objects import Mask, ellipses, map_of, photo_of

from gconet.runtime.errors import PhotoError, UsageError
from gconet.runtime.framing import FITS, Fit
from gconet.runtime.thumbnail import (
    Box,
    Frame,
    Location,
    Shape,
    central_frame,
    frame_group,
    locate,
    overlay,
    thumbnail,
)

pytest.importorskip("cv2", reason="thumbnails need OpenCV: pip install 'gconet-deploy[pictures]'")

SHAPES = [Shape(1, 1, 64), Shape(4, 3, 100), Shape(3, 4, 33), Shape(16, 9, 257), Shape(1, 3, 50), Shape(21, 9, 200)]


def located(mask: Mask, blur: float = 3) -> Location:
    location = locate(map_of(mask, blur))
    assert location is not None
    return location


def framed(mask: Mask, shape: Shape, fit: Fit = "pad") -> Frame:
    (frame,) = frame_group([located(mask)], shape, fit=fit)
    assert frame is not None
    return frame


def shown(mask: Mask, box: Box) -> float:
    rows, columns = np.nonzero(mask)
    inside = (rows + 0.5 >= box.top) & (rows + 0.5 <= box.bottom)
    inside &= (columns + 0.5 >= box.left) & (columns + 0.5 <= box.right)
    return float(inside.mean())


def random_mask(rng: np.random.Generator) -> Mask:
    height, width = rng.integers(1, 400, 2)
    places = [(*rng.random(2), *(rng.random(2) * 0.4 + 0.02)) for _ in range(rng.integers(1, 4))]
    mask = ellipses(height, width, *places)  # type: ignore[arg-type]
    if not mask.any():
        mask[height // 2, width // 2] = True
    return mask


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_photo_gives_a_thumbnail_of_the_asked_shape(shape: Shape, fit: Fit) -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        mask = random_mask(rng)
        height, width = mask.shape
        frame = framed(mask, shape, fit)
        picture = thumbnail(photo_of(mask), frame)
        down, across = picture.shape[:2]
        assert (across, down) == shape.pixels
        assert max(across, down) == shape.size
        assert abs(across / shape.ratio - down) <= 1 or abs(down * shape.ratio - across) <= 1
        crop = frame.crop
        assert crop.width / crop.height == pytest.approx(shape.ratio)
        assert crop.left < width
        assert crop.right > 0
        assert 0 < frame.kept <= 1 + 1e-9
        if fit == "crop":
            assert not frame.padded
            assert min(crop.left, crop.top) >= -1e-6
            assert crop.right <= width + 1e-6
            assert crop.bottom <= height + 1e-6
        else:
            assert shown(mask, crop) > 0.95 or frame.left_out


def test_boxes_hold_the_object_and_lie_in_each_other() -> None:
    mask = ellipses(300, 400, (0.4, 0.6, 0.1, 0.15))
    frame = framed(mask, Shape(1, 1, 64))
    assert frame.tight is not None
    assert frame.enlarged is not None
    rows, columns = np.nonzero(mask)
    for edge, wanted in zip(("left", "top", "right", "bottom"),
                            (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), strict=True):  # fmt: skip
        assert getattr(frame.tight, edge) == pytest.approx(wanted, abs=8)
    assert frame.enlarged.joined(frame.tight) == frame.enlarged
    assert frame.crop.joined(frame.enlarged) == frame.crop
    assert shown(mask, frame.crop) == 1


def test_the_crop_of_a_small_object_leaves_most_of_the_photo_out() -> None:
    frame = framed(ellipses(300, 400, (0.3, 0.3, 0.1, 0.1)), Shape(1, 1, 32))
    assert frame.kept < 0.2


def test_a_small_object_is_not_enlarged_beyond_its_own_pixels_where_the_photo_has_room() -> None:
    frame = framed(ellipses(600, 600, (0.5, 0.5, 0.05, 0.05)), Shape(1, 1, 200))
    assert frame.crop.width == pytest.approx(200)


def test_objects_take_the_same_share_of_every_thumbnail_where_photos_allow_it() -> None:
    radii = [0.1, 0.15, 0.2, 0.25]
    masks = [ellipses(400, 500, (0.5, 0.5, radius * 0.8, radius)) for radius in radii]
    masks.append(ellipses(400, 500, (0.5, 0.5, 0.38, 0.48)))  # fills its photo: the crop cannot be wide enough
    frames = frame_group([located(mask, 2) for mask in masks], Shape(1, 1, 32), fit="crop")
    shares = []
    for frame in frames:
        assert frame is not None
        assert frame.tight is not None
        shares.append(max(frame.tight.width, frame.tight.height) / frame.crop.width)
    assert np.ptp(shares[:4]) < 1e-6
    assert shares[4] > shares[0] * 1.05
    alone = [framed(mask, Shape(1, 1, 32)) for mask in masks[:4]]
    assert np.ptp([max(f.tight.width, f.tight.height) / f.crop.width for f in alone if f.tight]) > 0.01
    for mask, frame in zip(masks, frames, strict=True):
        assert frame is not None
        assert shown(mask, frame.crop) == 1


def test_objects_that_fit_a_crop_are_joined() -> None:
    mask = ellipses(300, 400, (0.4, 0.5, 0.06, 0.08), (0.6, 0.5, 0.06, 0.08))
    assert len(located(mask).objects) == 2
    for fit in FITS:
        frame = framed(mask, Shape(1, 1, 64), fit)
        assert (frame.left_out, frame.padded) == (0, False)
        assert shown(mask, frame.crop) == 1


def test_objects_that_do_not_fit_are_left_out_but_the_most_salient() -> None:
    mask = ellipses(100, 400, (0.15, 0.5, 0.1, 0.4), (0.9, 0.5, 0.05, 0.2))
    larger = ellipses(100, 400, (0.15, 0.5, 0.1, 0.4))
    frame = framed(mask, Shape(1, 1, 64), "crop")
    assert frame.left_out == 1
    assert shown(larger, frame.crop) == 1
    padded = framed(mask, Shape(1, 1, 64), "pad")  # both matter: whole, on a thumbnail that reaches beyond the photo
    assert (padded.left_out, padded.padded) == (0, True)
    assert shown(mask, padded.crop) == 1


def test_an_object_too_long_for_the_shape_is_padded_or_cut_where_it_is_brightest() -> None:
    mask = ellipses(100, 400, (0.5, 0.5, 0.45, 0.3))
    padded = framed(mask, Shape(1, 1, 64), "pad")
    assert padded.padded
    assert shown(mask, padded.crop) == 1
    picture = thumbnail(photo_of(mask), padded, fill=(1, 2, 3))
    assert (picture[0] == (1, 2, 3)).all()
    assert (picture[-1] == (1, 2, 3)).all()
    assert (picture[32] != (1, 2, 3)).any()

    saliency = map_of(mask, 3)
    saliency[:, :200] *= 0.5
    (cut,) = frame_group([locate(saliency)], Shape(1, 1, 64), fit="crop")
    assert cut is not None
    assert cut.crop.height == pytest.approx(100)
    assert 200 <= cut.crop.left <= 300


def test_the_middle_of_a_photo_stands_in_where_nothing_is_found() -> None:
    assert locate(np.zeros((30, 40), np.float32)) is None
    mask = ellipses(60, 90, (0.5, 0.5, 0.2, 0.2))
    frames = frame_group([None, located(mask), None], Shape(4, 3))
    assert [frame is None for frame in frames] == [True, False, True]
    frame = central_frame(30, 90, Shape(1, 1, 10))
    assert frame.crop == Box(30, 0, 60, 30)
    assert (frame.tight, frame.padded) == (None, False)
    assert frame_group([], Shape(1, 1)) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_the_thinnest_photos_have_thumbnails_and_overlays(size: tuple[int, int]) -> None:
    saliency = np.ones(size, np.float32)
    photo = np.full((*size, 3), 120, np.uint8)
    for fit in FITS:
        (frame,) = frame_group([locate(saliency)], Shape(4, 3, 20), fit=fit)
        assert frame is not None
        assert thumbnail(photo, frame).shape == (15, 20, 3)
        assert overlay(photo, frame).shape == photo.shape


def test_a_thumbnail_shows_the_pixels_of_its_crop() -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    photo[20:60, 30:70] = 255
    picture = thumbnail(photo, Frame(Shape(1, 1, 40), 100, 100, Box(30, 20, 70, 60)))
    assert (picture == 255).all()


def test_overlays_draw_yellow_in_red_and_darken_what_is_cut_off() -> None:
    mask = ellipses(200, 300, (0.4, 0.5, 0.1, 0.2))
    photo = np.full((200, 300, 3), 100, np.uint8)
    frame = framed(mask, Shape(1, 1, 20))
    picture = overlay(photo, frame).astype(int)
    yellow = (picture == (255, 214, 0)).all(axis=2)
    red = (picture == (214, 0, 0)).all(axis=2)
    assert yellow.any()
    assert red.any()
    (top, left), (bottom, right) = np.argwhere(red).min(0), np.argwhere(red).max(0)
    assert (np.argwhere(yellow) >= (top, left)).all()
    assert (np.argwhere(yellow) <= (bottom, right)).all()
    assert (picture[0, 0] == 50).all()
    np.testing.assert_array_equal(photo, 100)


@pytest.mark.parametrize("numbers", [(0, 1, 10), (1, -1, 10), (1, 1, 0), (1, 1, 9000), (1000, 1, 100)])
def test_shapes_that_no_picture_has_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="no thumbnail has the aspect"):
        Shape(*numbers)


def test_mistakes_are_named() -> None:
    with pytest.raises(PhotoError, match="a map"):
        locate(np.zeros((3, 3), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no fit"):
        frame_group([], Shape(1, 1), fit="stretch")  # type: ignore[arg-type]
    frame = central_frame(10, 20, Shape(1, 1))
    with pytest.raises(UsageError, match="20×10"):
        thumbnail(np.zeros((20, 10, 3), np.uint8), frame)
    with pytest.raises(PhotoError, match="uint8"):
        overlay(np.zeros((10, 20, 3)), frame)  # type: ignore[arg-type]
