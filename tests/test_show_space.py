"""Consensus vectors in the plane: the same each time, what is apart stays apart, every photo drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gconet.runtime.show_group import GroupPoints
from gconet.runtime.show_space import Panel, draw_space, embed, perplexity_of

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'gconet-deploy[pictures]'")
pytest.importorskip("sklearn", reason="the t-SNE needs scikit-learn: pip install 'gconet-deploy[pictures]'")


@pytest.mark.parametrize("count", [4, 5, 12, 40])
def test_the_space_of_a_few_points_is_laid_out_the_same_each_time(count: int, rng: np.random.Generator) -> None:
    vectors = rng.random((count, 16), np.float32)
    first, second = embed(vectors), embed(vectors)
    assert first is not None
    assert second is not None
    assert first.shape == (count, 2)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
    assert 1 <= perplexity_of(count) < count


def test_there_is_no_space_of_three_points_or_of_one_place(rng: np.random.Generator) -> None:
    assert embed(rng.random((3, 8), np.float32)) is None
    assert embed(np.repeat(rng.random((1, 8), np.float32), 9, axis=0)) is None
    assert perplexity_of(1000) == 30


def test_groups_that_are_apart_stay_apart_in_the_space(rng: np.random.Generator) -> None:
    centres = np.eye(3, 32)
    vectors = np.concatenate([centre + rng.normal(0, 0.01, (8, 32)) for centre in centres]).astype(np.float32)
    layout = embed(vectors)
    assert layout is not None
    distances = np.linalg.norm(layout[:, None] - layout[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(distances.argmin(1) // 8, np.arange(24) // 8)


def test_the_space_is_drawn_with_every_photo(rng: np.random.Generator) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255)]

    def group(index: int) -> GroupPoints:
        parts = (np.eye(8)[index] + rng.normal(0, 0.1, (2, 8))).astype(np.float32)
        marker = np.full((60, 90, 3), colours[index], np.uint8)
        return GroupPoints(f"$group_{index}$ \\x", parts.mean(0), parts, (marker, marker))

    panel = Panel("a title with 100 % and $", [group(index) for index in range(4)])
    picture = draw_space([panel])
    assert picture is not None
    assert draw_space([panel]) == picture
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    for colour in colours:
        assert (pixels == colour).all(-1).sum() > 500


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["日本", "two\nlines", "\udcff is no text", "\x00"])
def test_groups_of_any_name_are_drawn(name: str, rng: np.random.Generator) -> None:
    marker = np.full((9, 9, 3), 200, np.uint8)
    parts = rng.random((4, 8), np.float32)
    picture = draw_space([Panel(name, [GroupPoints(name, parts.mean(0), parts, (marker,) * 4)])])
    assert picture is not None
    assert Image.open(io.BytesIO(picture)).format == "PNG"
