"""Small photos and maps, heat maps and overlays: what they show is what was found."""

from __future__ import annotations

import numpy as np
import pytest

from gconet.runtime.show_pictures import heat, overlay, relative_attention, shrink, shrink_map, upsample_attention

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'gconet-deploy[pictures]'")


def test_heat_maps_become_lighter_with_every_step() -> None:
    ramp = heat(np.linspace(0, 1, 256, dtype=np.float32)[None])[0].astype(float)
    lightness = ramp @ (0.2126, 0.7152, 0.0722)
    assert np.diff(lightness).min() > -0.6  # rounding to 8 bits
    assert lightness[-1] - lightness[0] > 150


def test_attention_is_upsampled_by_cells_not_by_corners() -> None:
    attention = np.zeros((14, 14), np.float32)
    attention[3, 9] = 0.5
    large = upsample_attention(attention, 280, 560)
    assert large.shape == (280, 560)
    row, column = np.unravel_index(large.argmax(), large.shape)
    assert 60 <= row < 80  # 3·20 … 4·20
    assert 360 <= column < 400
    assert (large >= 0).all()
    assert relative_attention(attention).max() == 1
    assert (relative_attention(np.full((2, 2), 0.25, np.float32)) == 1).all()
    assert (relative_attention(np.zeros((2, 2), np.float32)) == 0).all()


def test_photos_and_maps_are_made_small_alike(rng: np.random.Generator) -> None:
    photo = rng.integers(0, 256, (300, 1200, 3), dtype=np.uint8)
    assert shrink(photo, 480).shape == (120, 480, 3)
    assert shrink(photo, 2000) is photo
    assert shrink(photo[:1], 100).shape == (1, 100, 3)
    saliency = rng.random((300, 1200), np.float32)
    small = shrink_map(saliency, 120, 480)
    assert small.shape == (120, 480)
    assert small.mean() == pytest.approx(saliency.mean(), abs=1e-3)
    assert shrink_map(saliency, 600, 1200).shape == (600, 1200)


def test_a_map_below_the_contour_only_dims() -> None:
    photo = np.full((20, 20, 3), 100, np.uint8)
    assert (overlay(photo, np.full((20, 20), 0.4, np.float32)) == 55).all()
