"""Every function of gconet.h, called in this process: answers equal Python's."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from capi_library import CHANNELS, Library, rooms_for
from conftest import TINY_MAX_GROUP, TINY_SIZE
from fake_cuda import FakeArray, FakeDriver
from fake_tensorrt import fake_network, fake_plan
from imaginary_sessions import PROFILES, SIZE, write_bundle

import gconet.runtime as gr
from gconet.runtime import cuda, errors
from gconet.runtime.capi import build, calls
from gconet.runtime.preprocess import Photo, to_input


def test_versions_and_names(c: Library) -> None:
    assert c.lib.gconet_abi_version() == calls.ABI_VERSION == build.ABI
    assert f"#define GCONET_ABI_VERSION {build.ABI}\n" in (build.HERE / "gconet.h").read_text()
    assert c.ffi.string(c.lib.gconet_version()).decode() == build.version()
    names = re.findall(r"GCONET_(?:OK|ERROR_[A-Z]+)(?= = )", build.declarations("gconet.h"))
    assert [c.ffi.string(c.lib.gconet_status_name(code)).decode() for code in range(len(names))] == names
    for code in (-1, len(names)):
        assert c.ffi.string(c.lib.gconet_status_name(c.ffi.cast("gconet_status", code))) == b"unknown status"


def test_every_error_of_the_runtime_has_a_status(c: Library) -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, gr.GconetError)}
    others = {gr.GconetError, gr.CheckpointError}  # checkpoints are read in training and at build
    assert kinds - others == {kind for kind in calls.STATUS if issubclass(kind, gr.GconetError)}
    for kind, status in calls.STATUS.items():
        assert status == c.status(f"ERROR_{kind.__name__.removesuffix('Error').upper()}")
    assert c.status("ERROR_INTERNAL") == calls.INTERNAL


def test_a_bundle_describes_itself(c: Library, c_detector: Any, python_detector: gr.Detector) -> None:
    info = c.ffi.new("gconet_info *", {"size": c.ffi.sizeof("gconet_info")})
    assert c.lib.gconet_describe(c_detector, info) == 0
    manifest = python_detector.bundle.manifest
    assert (info.input_size, info.max_group, info.verified_group) == (TINY_SIZE, 0, TINY_MAX_GROUP)
    assert (info.consensus_length, info.has_consensus) == (CHANNELS, 1)
    np.testing.assert_array_equal(list(info.mean), np.float32(manifest.preprocessing.mean))
    np.testing.assert_array_equal(list(info.std), np.float32(manifest.preprocessing.std))
    assert [c.ffi.string(text).decode() for text in (info.target, info.precision, info.target_version)] == [
        "onnxruntime", "fp32", manifest.target_version
    ]  # fmt: skip
    older = c.ffi.new("gconet_info *", {"size": c.ffi.offsetof("gconet_info", "max_group"), "max_group": -7})
    assert c.lib.gconet_describe(c_detector, older) == 0
    assert (older.input_size, older.max_group) == (TINY_SIZE, -7)  # not its own yet when the caller was compiled


def test_the_manifest_comes_whole_or_not_at_all(c: Library, c_detector: Any, python_detector: gr.Detector) -> None:
    length = c.ffi.new("size_t *")
    assert c.lib.gconet_manifest(c_detector, c.ffi.NULL, 0, length) == 0
    text = c.ffi.new("char[]", length[0] + 1)
    assert c.lib.gconet_manifest(c_detector, text, length[0], length) == c.status("ERROR_USAGE")
    assert f"there is room for {length[0]}" in c.error()
    assert c.lib.gconet_manifest(c_detector, text, length[0] + 1, c.ffi.NULL) == 0
    assert json.loads(c.ffi.string(text)) == json.loads(python_detector.bundle.manifest.to_json())


def test_photos_give_pythons_maps_to_the_bit(
    c: Library, c_detector: Any, python_detector: gr.Detector, two_photos: list[Photo]
) -> None:
    rooms, views = rooms_for(two_photos), c.photos(*two_photos)
    assert views[0].row_stride > 3 * views[0].width
    views[1].row_stride = 0  # no gaps
    assert c.lib.gconet_detect(c_detector, views, 2, c.maps(*rooms)) == 0
    for room, expected in zip(rooms, python_detector.detect(two_photos), strict=True):
        np.testing.assert_array_equal(room, expected)


def test_a_consensus_is_pythons_and_found_again(
    c: Library, c_detector: Any, python_detector: gr.Detector, two_photos: list[Photo], tmp_path: Path
) -> None:
    shared, rooms, views = np.full(CHANNELS, -7, np.float32), rooms_for(two_photos), c.photos(*two_photos)
    assert c.lib.gconet_consensus(c_detector, views, 2, c.floats(shared), CHANNELS) == 0
    np.testing.assert_array_equal(shared, python_detector.consensus(two_photos))
    assert c.lib.gconet_segment(c_detector, views, 2, c.floats(shared), CHANNELS, c.maps(*rooms)) == 0
    for room, expected in zip(rooms, python_detector.segment(two_photos, shared), strict=True):
        np.testing.assert_array_equal(room, expected)
    gr.save_consensus(tmp_path / "kept.safetensors", python_detector.bundle, shared * 2)
    read = np.zeros(CHANNELS, np.float32)
    path = os.fsencode(tmp_path / "kept.safetensors")
    assert c.lib.gconet_read_consensus(c_detector, path, c.floats(read), CHANNELS) == 0
    np.testing.assert_array_equal(read, shared * 2)


def test_network_input_is_made_and_used(
    c: Library, c_detector: Any, python_detector: gr.Detector, two_photos: list[Photo]
) -> None:
    images = np.full((2, 3, TINY_SIZE, TINY_SIZE), -7, np.float32)
    maps, shared = np.full((2, 1, TINY_SIZE, TINY_SIZE), -7, np.float32), python_detector.consensus(two_photos)
    assert c.lib.gconet_prepare(c_detector, c.photos(*two_photos), 2, c.floats(images)) == 0
    np.testing.assert_array_equal(images, to_input(two_photos, python_detector.bundle.manifest.preprocessing))
    assert c.lib.gconet_detect_input(c_detector, c.floats(images), 2, c.floats(maps)) == 0
    np.testing.assert_array_equal(maps, python_detector.session.infer({"images": images})["maps"])
    assert c.lib.gconet_segment_input(c_detector, c.floats(images), 2, c.floats(shared), CHANNELS, c.floats(maps)) == 0
    expected = np.zeros_like(maps)
    python_detector.segment_into(images, shared, expected)
    np.testing.assert_array_equal(maps, expected)


def test_arrays_on_a_gpu_are_used_in_the_order_of_the_callers_stream(
    c: Library, driver: FakeDriver, tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = write_bundle(tmp_path / "plan.gconet", fake_plan(SIZE, PROFILES))
    detector = c.load(folder, no_cuda_graphs=1)
    values = rng.standard_normal((3, 3, SIZE, SIZE), np.float32)
    images = FakeArray(driver, np.zeros_like(values))
    maps = FakeArray(driver, np.zeros((3, 1, SIZE, SIZE), np.float32))
    stream = cuda.Stream(cuda.Device(0))
    driver.streams[stream.address].append(lambda: np.copyto(driver.tensor(images.pointer, values.shape), values))

    def where(array: FakeArray) -> Any:
        return c.ffi.cast("float *", array.pointer)

    address = c.ffi.cast("void *", stream.address)
    assert c.lib.gconet_detect_device(detector, where(images), 3, where(maps), address) == 0, c.error()
    with stream.device:
        stream.synchronize()
    np.testing.assert_array_equal(maps.read(), fake_network(values))
    assert c.lib.gconet_detect_device(detector, where(images), 2, where(maps), c.ffi.NULL) == 0, c.error()
    assert c.lib.gconet_detect_device(detector, where(images), 13, where(maps), address) == c.status("ERROR_USAGE")
    photo, shared = np.zeros((4, 4, 3), np.uint8), np.zeros(512, np.float32)
    code = c.lib.gconet_consensus(detector, c.photos(photo), 1, c.floats(shared), len(shared))
    assert code == c.status("ERROR_BUNDLE")
    info = c.ffi.new("gconet_info *", {"size": c.ffi.sizeof("gconet_info")})
    assert c.lib.gconet_describe(detector, info) == 0
    assert (info.max_group, info.has_consensus) == (12, 0)
    c.lib.gconet_free(detector)
