"""Pre- and post-processing against the same steps done plainly in Pillow and torch."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gconet.runtime.preprocess import Photo, Preprocessing, resize_map, to_bytes, to_input

GOOD: dict[str, Any] = {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def plain_input(photo: Photo, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize, scale to [0, 1], normalise, channels first; in double precision."""
    side = preprocessing.size
    pixels = torch.from_numpy(np.array(Image.fromarray(photo).resize((side, side), Image.Resampling.BILINEAR)))
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (preprocessing.mean, preprocessing.std))
    return ((pixels.double() / 255 - mean) / std).permute(2, 0, 1)


@pytest.mark.parametrize(
    "preprocessing", [Preprocessing(), Preprocessing(48, mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.25))], ids=str
)
def test_network_input_is_the_resized_and_normalised_group(
    preprocessing: Preprocessing, rng: np.random.Generator
) -> None:
    photos = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in [(300, 170), (20, 31), (1, 1)]]
    images = to_input(photos, preprocessing)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    assert images.shape == (3, 3, preprocessing.size, preprocessing.size)
    expected = torch.stack([plain_input(photo, preprocessing) for photo in photos])
    np.testing.assert_allclose(images, expected.numpy(), rtol=0, atol=1e-6)


def test_default_preprocessing_is_imagenets_at_224() -> None:
    assert dataclasses.asdict(Preprocessing()) == {key: tuple(v) if key != "size" else v for key, v in GOOD.items()}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((14, 14), (224, 224)),
        ((224, 224), (480, 641)),
        ((224, 224), (37, 100)),
        ((5, 7), (3, 20)),
        ((9, 4), (1, 1)),
        ((9, 4), (1, 13)),
        ((9, 4), (13, 1)),
        ((1, 1), (6, 5)),
        ((1, 8), (6, 5)),
        ((2, 2), (2, 3)),
    ],
)
def test_resized_map_is_torchs_bilinear_with_aligned_corners(
    before: tuple[int, int], after: tuple[int, int], rng: np.random.Generator
) -> None:
    saliency = rng.random(before, dtype=np.float32)
    resized = resize_map(saliency, *after)
    assert resized.shape == after
    assert resized.dtype == np.float32
    assert resized.flags.c_contiguous
    # In double, since torch's own single-precision positions are off by 1e-5 of a pixel.
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(saliency).double()[None, None], size=after, mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(resized, expected[0, 0].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(224, 224), (7, 1), (1, 1)])
def test_resizing_to_the_same_size_changes_no_value(shape: tuple[int, int], rng: np.random.Generator) -> None:
    saliency = rng.random(shape, dtype=np.float32)
    np.testing.assert_array_equal(resize_map(saliency, *shape), saliency)


def test_resized_map_keeps_the_corners_and_stays_within_the_range(rng: np.random.Generator) -> None:
    for _ in range(100):
        saliency = (np.rint(rng.random(rng.integers(2, 30, 2)) * 5) / 5).astype(np.float32)
        resized = resize_map(saliency, *rng.integers(2, 100, 2))
        assert saliency.min() <= resized.min()
        assert resized.max() <= saliency.max()
        np.testing.assert_array_equal(resized[:: len(resized) - 1, -1], saliency[:: len(saliency) - 1, -1])


def test_map_values_are_cut_off_to_grey_values_as_the_authors_do(rng: np.random.Generator) -> None:
    saliency = (np.array([[0, 0.49, 0.99, 1.01], [127.4, 127.6, 254.99, 255]]) / 255).astype(np.float32)
    grey = to_bytes(saliency)
    assert grey.dtype == np.uint8
    assert grey.tolist() == [[0, 0, 0, 1], [127, 127, 254, 255]]
    many = rng.random(10_000, dtype=np.float32)
    np.testing.assert_array_equal(to_bytes(many), torch.from_numpy(many).mul(255).byte().numpy())


def test_every_grey_value_survives_the_way_to_a_map_and_back() -> None:
    grey = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_bytes((grey / 255).astype(np.float32)), grey)


def test_preprocessing_survives_json() -> None:
    preprocessing = Preprocessing(320, mean=(0.5, 0.25, 0.1), std=(1.0, 2.0, 0.3))
    document = json.loads(json.dumps(dataclasses.asdict(preprocessing)))
    assert Preprocessing.from_dict(document) == preprocessing


@pytest.mark.parametrize(
    "change",
    [
        {"size": 225},
        {"size": 16},
        {"size": 0},
        {"size": -224},
        {"size": 4096},
        {"size": 224.0},
        {"size": "224"},
        {"size": True},
        {"mean": [0.5, 0.5]},
        {"mean": [0.5, 0.5, 0.5, 0.5]},
        {"mean": ["red", 0.5, 0.5]},
        {"mean": [float("nan"), 0.5, 0.5]},
        {"mean": None},
        {"std": [0.2, 0.0, 0.2]},
        {"std": [0.2, -0.1, 0.2]},
        {"std": [0.2, 0.2, float("inf")]},
        {"std": [0.2, float("nan"), 0.2]},
        {"std": 0.2},
    ],
    ids=str,
)
def test_impossible_preprocessing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Preprocessing.from_dict(GOOD | change)


@pytest.mark.parametrize("key", GOOD)
def test_incomplete_preprocessing_is_refused(key: str) -> None:
    with pytest.raises(KeyError):
        Preprocessing.from_dict({name: value for name, value in GOOD.items() if name != key})
