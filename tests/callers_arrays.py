"""Arrays of callers, and detectors to run on them: fixtures `tiny_detector` and `two_images`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_SIZE

import gconet.runtime as gr
from gconet.runtime import dlpack
from gconet.runtime.preprocess import FloatArray

BundleMaker = Callable[[str, str], Path]
TARGETS = ("onnxruntime", "openvino")
CHANNELS = TINY.encoder_channels[-1]
GIVEN: dict[str, Callable[[FloatArray], Any]] = {
    "numpy": lambda array: array,
    "PyTorch": torch.from_numpy,
    "address": lambda array: gr.HostBuffer(array.ctypes.data, array.shape),
    "dlpack": lambda array: SimpleNamespace(
        __dlpack_device__=lambda: (dlpack.CPU, 0), __dlpack__=array.__dlpack__, kept=array
    ),
}


@pytest.fixture(params=TARGETS)
def tiny_detector(request: pytest.FixtureRequest, tiny_bundle: BundleMaker) -> gr.Detector:
    """Of a tiny fp32 bundle of each target."""
    return gr.load(tiny_bundle(request.param, "fp32"), threads=1)


@pytest.fixture
def two_images(rng: np.random.Generator) -> FloatArray:
    """Network input of two photos."""
    return images_of(2, rng)


def images_of(count: int, rng: np.random.Generator, size: int = TINY_SIZE) -> FloatArray:
    """Network input of `count` photos."""
    return rng.standard_normal((count, 3, size, size), np.float32)


def room_for(images: FloatArray) -> FloatArray:
    """Memory for the maps, of which nothing may be left."""
    return np.full((len(images), 1, *images.shape[2:]), -7, np.float32)
