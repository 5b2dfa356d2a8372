"""libgconet.so in this process by cffi: the library, a detector of its own and Python's, and right arguments of all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, TINY_SIZE

import gconet.runtime as gr
from gconet.runtime.capi import build
from gconet.runtime.preprocess import FloatArray, Photo

BundleMaker = Callable[[str, str], Path]
CHANNELS = TINY.encoder_channels[-1]


class Library:
    """The library, and its memory."""

    def __init__(self, path: Path) -> None:
        cffi = pytest.importorskip("cffi", reason="needs cffi: pip install 'gconet-deploy[capi]'")
        self.ffi = cffi.FFI()
        self.ffi.cdef(build.declarations("gconet.h"))
        self.lib = self.ffi.dlopen(str(path))

    def error(self) -> str:
        return self.ffi.string(self.lib.gconet_last_error()).decode()

    def status(self, name: str) -> int:
        return int(getattr(self.lib, f"GCONET_{name}"))

    def load(self, bundle: Path, **options: Any) -> Any:
        found = self.ffi.new("gconet_detector **")
        given = self.ffi.new("gconet_options *", {"size": self.ffi.sizeof("gconet_options"), **options})
        assert self.lib.gconet_load(os.fsencode(bundle), given, found) == 0, self.error()
        return found[0]

    def photos(self, *photos: Photo) -> Any:
        views = self.ffi.new("gconet_photo[]", len(photos))
        for view, photo in zip(views, photos, strict=True):
            view.rgb = self.ffi.cast("uint8_t *", photo.ctypes.data)
            view.height, view.width = photo.shape[:2]
            view.row_stride = photo.strides[0]
        return views

    def floats(self, array: FloatArray) -> Any:
        return self.ffi.cast("float *", array.ctypes.data)

    def maps(self, *maps: FloatArray) -> Any:
        return self.ffi.new("float *[]", [self.floats(array) for array in maps])


@pytest.fixture(scope="session")
def c(capi: dict[str, Path]) -> Library:
    """The library in this process, whose interpreter it uses."""
    return Library(capi["library"])


@pytest.fixture(scope="session")
def c_bundle(tiny_bundle: BundleMaker) -> Path:
    """What it loads."""
    return tiny_bundle("onnxruntime", "fp32")


@pytest.fixture
def c_detector(c: Library, c_bundle: Path) -> Iterator[Any]:
    """A pointer to one."""
    loaded = c.load(c_bundle, threads=1)
    yield loaded
    c.lib.gconet_free(loaded)


@pytest.fixture
def python_detector(c_bundle: Path) -> gr.Detector:
    """The same from Python."""
    return gr.load(c_bundle, threads=1)


@pytest.fixture
def two_photos(example_photos: list[Photo]) -> list[Photo]:
    """Two photos of different sizes; rows of one have gaps."""
    return [example_photos[0][:80, :120], np.ascontiguousarray(example_photos[1][:70, :90])]


def rooms_for(photos: list[Photo]) -> list[FloatArray]:
    """Memory for the maps, of which nothing may be left."""
    return [np.full(photo.shape[:2], -7, np.float32) for photo in photos]


@pytest.fixture
def right(c: Library, c_detector: Any, c_bundle: Path, two_photos: list[Photo]) -> Iterator[dict[str, list[Any]]]:
    """Right arguments of every function; what they point to lives as long as the fixture."""
    views, rooms = c.photos(*two_photos), rooms_for(two_photos)
    images, small = (
        np.zeros((2, 3, TINY_SIZE, TINY_SIZE), np.float32),
        np.zeros((2, 1, TINY_SIZE, TINY_SIZE), np.float32),
    )
    shared, text, options = np.zeros(CHANNELS, np.float32), c.ffi.new("char[]", 9), c.ffi.NULL
    info = c.ffi.new("gconet_info *", {"size": c.ffi.sizeof("gconet_info")})
    maps, floats = c.maps(*rooms), c.floats
    yield {
        "gconet_load": [os.fsencode(c_bundle), options, c.ffi.new("gconet_detector **")],
        "gconet_describe": [c_detector, info],
        "gconet_manifest": [c_detector, text, 9, c.ffi.new("size_t *")],
        "gconet_detect": [c_detector, views, 2, maps],
        "gconet_consensus": [c_detector, views, 2, floats(shared), CHANNELS],
        "gconet_read_consensus": [c_detector, b"kept.safetensors", floats(shared), CHANNELS],
        "gconet_segment": [c_detector, views, 2, floats(shared), CHANNELS, maps],
        "gconet_prepare": [c_detector, views, 2, floats(images)],
        "gconet_detect_input": [c_detector, floats(images), 2, floats(small)],
        "gconet_segment_input": [c_detector, floats(images), 2, floats(shared), CHANNELS, floats(small)],
        "gconet_detect_device": [c_detector, floats(images), 2, floats(small), c.ffi.NULL],
    }
    del rooms, images, small, shared, info, text
