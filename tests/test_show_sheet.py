"""Sheets of groups: what stands where, and names of any kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gconet.runtime.preprocess import FloatArray, Photo
from gconet.runtime.show_group import GroupPoints, ShownGroup, ShownPhoto
from gconet.runtime.show_sheet import CELL_HEIGHT, CELL_WIDTH, ROWS, draw_sheet

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'gconet-deploy[pictures]'")


def shown_photo(name: str, picture: Photo, saliency: FloatArray, attention: FloatArray | None = None) -> ShownPhoto:
    if attention is None:
        attention = np.full((4, 4), 1 / 16, np.float32)
    return ShownPhoto(Path(name), picture, saliency, attention)


def shown_group(*photos: ShownPhoto, name: str = "things", count: int | None = None) -> ShownGroup:
    points = GroupPoints(name, np.ones(3, np.float32), np.ones((1, 3), np.float32), ())
    return ShownGroup(name, len(photos) if count is None else count, photos, points)


def test_a_sheet_has_a_column_for_each_photo_and_four_rows(rng: np.random.Generator) -> None:
    def photo(height: int, width: int) -> ShownPhoto:
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        return shown_photo("p.jpg", picture, rng.random((height, width), np.float32))

    one, three = (draw_sheet(shown_group(*[photo(300, 400)] * count, name="x" * 40)) for count in (1, 3))
    assert one.height == three.height > len(ROWS) * CELL_HEIGHT
    assert three.width >= 3 * CELL_HEIGHT * 4 / 3
    wide = draw_sheet(shown_group(*[photo(100, 2000)] * 5))
    assert 5 * CELL_WIDTH < wide.width < 5 * CELL_WIDTH + 200


def test_a_sheets_rows_show_photo_attention_map_and_overlay() -> None:
    picture = np.full((144, 144, 3), (200, 100, 40), np.uint8)
    saliency = np.zeros((144, 144), np.float32)
    saliency[:, 72:] = 1
    attention = np.zeros((4, 4), np.float32)
    attention[0, 0] = 1
    sheet = np.asarray(draw_sheet(shown_group(shown_photo("p.jpg", picture, saliency, attention)))).astype(int)
    column = np.flatnonzero((sheet == (200, 100, 40)).all(-1).any(0))
    rows = np.flatnonzero((sheet == (200, 100, 40)).all(-1).any(1))
    left, top = column[0], rows[0]
    cells = [sheet[top + row * (CELL_HEIGHT + 6) :][:144, left : left + 144] for row in range(4)]
    assert (cells[0] == picture).all()
    lightness = cells[1].sum(-1)
    assert lightness[:16, :16].min() > lightness[90:, 90:].max()  # its one cell, and no other
    assert (cells[2][:, :70] == 0).all()
    assert (cells[2][:, 74:] == 255).all()
    assert (cells[3][:, 76:] == picture[:, 76:]).all()
    assert np.abs(cells[3][:, :68] - picture[:, :68] * 0.25).max() <= 1
    assert (cells[3][:, 70:74] == 255).all(-1).any()  # the contour: white,
    assert (cells[3][:, 70:74] == 0).all(-1).any()  # and black


def test_sheets_say_when_photos_are_left_out_and_survive_odd_names(rng: np.random.Generator) -> None:
    picture, saliency = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), np.zeros((60, 80), np.float32)
    for name in ("", "a\n\x00b.jpg", "n" * 300, "日本", "\udcff.jpg", "<i>"):
        assert draw_sheet(shown_group(shown_photo(name, picture, saliency), name=name or "x")).width > 0
    whole, part = (
        np.asarray(draw_sheet(shown_group(shown_photo("p", picture, saliency), count=count))) for count in (1, 9)
    )
    differs = np.flatnonzero((whole != part).any((1, 2)))
    assert differs.min() > 0
    assert differs.max() < 46  # only the title: "the first 1 of 9 photos; …"
