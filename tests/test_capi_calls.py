"""Every function of gconet.h, called in this process: answers equal Python's, misuse is a status and a line."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, TINY_MAX_GROUP, TINY_SIZE
from fake_cuda import FakeArray, FakeDriver
from fake_tensorrt import fake_network, fake_plan
from imaginary_sessions import PROFILES, SIZE, write_bundle

import gconet.runtime as gr
from gconet.runtime import cuda, errors
from gconet.runtime.capi import build, calls
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.preprocess import FloatArray, Photo, to_input
from gconet.runtime.signing import make_keys, sign_manifest

cffi = pytest.importorskip("cffi", reason="needs cffi: pip install 'gconet-deploy[capi]'")

BundleMaker = Callable[[str, str], Path]
CHANNELS = TINY.encoder_channels[-1]
PIXELS = TINY_SIZE**2


class Library:
    """The library, and its memory."""

    def __init__(self, path: Path) -> None:
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


@pytest.fixture(scope="module")
def c(capi: dict[str, Path]) -> Library:
    """The library in this process, whose interpreter it uses."""
    return Library(capi["library"])


@pytest.fixture(scope="module")
def bundle(tiny_bundle: BundleMaker) -> Path:
    return tiny_bundle("onnxruntime", "fp32")


@pytest.fixture
def detector(c: Library, bundle: Path) -> Iterator[Any]:
    """A pointer to one."""
    loaded = c.load(bundle, threads=1)
    yield loaded
    c.lib.gconet_free(loaded)


@pytest.fixture
def python(bundle: Path) -> gr.Detector:
    """The same from Python."""
    return gr.load(bundle, threads=1)


@pytest.fixture
def photos(example_photos: list[Photo]) -> list[Photo]:
    """Two photos of different sizes; rows of one have gaps."""
    return [example_photos[0][:80, :120], np.ascontiguousarray(example_photos[1][:70, :90])]


def rooms_for(photos: list[Photo]) -> list[FloatArray]:
    return [np.full(photo.shape[:2], -7, np.float32) for photo in photos]


# Answers


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


def test_a_bundle_describes_itself(c: Library, detector: Any, python: gr.Detector) -> None:
    info = c.ffi.new("gconet_info *", {"size": c.ffi.sizeof("gconet_info")})
    assert c.lib.gconet_describe(detector, info) == 0
    manifest = python.bundle.manifest
    assert (info.input_size, info.max_group, info.verified_group) == (TINY_SIZE, 0, TINY_MAX_GROUP)
    assert (info.consensus_length, info.has_consensus) == (CHANNELS, 1)
    np.testing.assert_array_equal(list(info.mean), np.float32(manifest.preprocessing.mean))
    np.testing.assert_array_equal(list(info.std), np.float32(manifest.preprocessing.std))
    assert [c.ffi.string(text).decode() for text in (info.target, info.precision, info.target_version)] == [
        "onnxruntime", "fp32", manifest.target_version
    ]  # fmt: skip
    older = c.ffi.new("gconet_info *", {"size": c.ffi.offsetof("gconet_info", "max_group"), "max_group": -7})
    assert c.lib.gconet_describe(detector, older) == 0
    assert (older.input_size, older.max_group) == (TINY_SIZE, -7)  # not its own yet when the caller was compiled


def test_the_manifest_comes_whole_or_not_at_all(c: Library, detector: Any, python: gr.Detector) -> None:
    length = c.ffi.new("size_t *")
    assert c.lib.gconet_manifest(detector, c.ffi.NULL, 0, length) == 0
    text = c.ffi.new("char[]", length[0] + 1)
    assert c.lib.gconet_manifest(detector, text, length[0], length) == c.status("ERROR_USAGE")
    assert f"there is room for {length[0]}" in c.error()
    assert c.lib.gconet_manifest(detector, text, length[0] + 1, c.ffi.NULL) == 0
    assert json.loads(c.ffi.string(text)) == json.loads(python.bundle.manifest.to_json())


def test_photos_give_pythons_maps_to_the_bit(
    c: Library, detector: Any, python: gr.Detector, photos: list[Photo]
) -> None:
    rooms, views = rooms_for(photos), c.photos(*photos)
    assert views[0].row_stride > 3 * views[0].width
    views[1].row_stride = 0  # no gaps
    assert c.lib.gconet_detect(detector, views, 2, c.maps(*rooms)) == 0
    for room, expected in zip(rooms, python.detect(photos), strict=True):
        np.testing.assert_array_equal(room, expected)


def test_a_consensus_is_pythons_and_found_again(
    c: Library, detector: Any, python: gr.Detector, photos: list[Photo], tmp_path: Path
) -> None:
    shared, rooms, views = np.full(CHANNELS, -7, np.float32), rooms_for(photos), c.photos(*photos)
    assert c.lib.gconet_consensus(detector, views, 2, c.floats(shared), CHANNELS) == 0
    np.testing.assert_array_equal(shared, python.consensus(photos))
    assert c.lib.gconet_segment(detector, views, 2, c.floats(shared), CHANNELS, c.maps(*rooms)) == 0
    for room, expected in zip(rooms, python.segment(photos, shared), strict=True):
        np.testing.assert_array_equal(room, expected)
    gr.save_consensus(tmp_path / "kept.safetensors", python.bundle, shared * 2)
    read = np.zeros(CHANNELS, np.float32)
    path = os.fsencode(tmp_path / "kept.safetensors")
    assert c.lib.gconet_read_consensus(detector, path, c.floats(read), CHANNELS) == 0
    np.testing.assert_array_equal(read, shared * 2)


def test_network_input_is_made_and_used(c: Library, detector: Any, python: gr.Detector, photos: list[Photo]) -> None:
    images = np.full((2, 3, TINY_SIZE, TINY_SIZE), -7, np.float32)
    maps, shared = np.full((2, 1, TINY_SIZE, TINY_SIZE), -7, np.float32), python.consensus(photos)
    assert c.lib.gconet_prepare(detector, c.photos(*photos), 2, c.floats(images)) == 0
    np.testing.assert_array_equal(images, to_input(photos, python.bundle.manifest.preprocessing))
    assert c.lib.gconet_detect_input(detector, c.floats(images), 2, c.floats(maps)) == 0
    np.testing.assert_array_equal(maps, python.session.infer({"images": images})["maps"])
    assert c.lib.gconet_segment_input(detector, c.floats(images), 2, c.floats(shared), CHANNELS, c.floats(maps)) == 0
    expected = np.zeros_like(maps)
    python.segment_into(images, shared, expected)
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


# Misuse

NULL_ARGUMENTS = [
    ("gconet_load", 0, "bundle"),
    ("gconet_load", 2, "detector"),
    ("gconet_describe", 0, "detector"),
    ("gconet_describe", 1, "info"),
    ("gconet_manifest", 0, "detector"),
    ("gconet_manifest", 1, "json"),
    ("gconet_detect", 0, "detector"),
    ("gconet_detect", 1, "photos"),
    ("gconet_detect", 3, "maps"),
    ("gconet_consensus", 0, "detector"),
    ("gconet_consensus", 1, "photos"),
    ("gconet_consensus", 3, "consensus"),
    ("gconet_read_consensus", 0, "detector"),
    ("gconet_read_consensus", 1, "path"),
    ("gconet_read_consensus", 2, "consensus"),
    ("gconet_segment", 0, "detector"),
    ("gconet_segment", 1, "photos"),
    ("gconet_segment", 3, "consensus"),
    ("gconet_segment", 5, "maps"),
    ("gconet_prepare", 0, "detector"),
    ("gconet_prepare", 1, "photos"),
    ("gconet_prepare", 3, "images"),
    ("gconet_detect_input", 0, "detector"),
    ("gconet_detect_input", 1, "images"),
    ("gconet_detect_input", 3, "maps"),
    ("gconet_segment_input", 0, "detector"),
    ("gconet_segment_input", 1, "images"),
    ("gconet_segment_input", 3, "consensus"),
    ("gconet_segment_input", 5, "maps"),
    ("gconet_detect_device", 0, "detector"),
    ("gconet_detect_device", 1, "images"),
    ("gconet_detect_device", 3, "maps"),
]


@pytest.fixture
def right(c: Library, detector: Any, bundle: Path, photos: list[Photo]) -> Iterator[dict[str, list[Any]]]:
    """Right arguments of every function; what they point to lives as long as the fixture."""
    views, rooms = c.photos(*photos), rooms_for(photos)
    images, small = (
        np.zeros((2, 3, TINY_SIZE, TINY_SIZE), np.float32),
        np.zeros((2, 1, TINY_SIZE, TINY_SIZE), np.float32),
    )
    shared, text, options = np.zeros(CHANNELS, np.float32), c.ffi.new("char[]", 9), c.ffi.NULL
    info = c.ffi.new("gconet_info *", {"size": c.ffi.sizeof("gconet_info")})
    maps, floats = c.maps(*rooms), c.floats
    yield {
        "gconet_load": [os.fsencode(bundle), options, c.ffi.new("gconet_detector **")],
        "gconet_describe": [detector, info],
        "gconet_manifest": [detector, text, 9, c.ffi.new("size_t *")],
        "gconet_detect": [detector, views, 2, maps],
        "gconet_consensus": [detector, views, 2, floats(shared), CHANNELS],
        "gconet_read_consensus": [detector, b"kept.safetensors", floats(shared), CHANNELS],
        "gconet_segment": [detector, views, 2, floats(shared), CHANNELS, maps],
        "gconet_prepare": [detector, views, 2, floats(images)],
        "gconet_detect_input": [detector, floats(images), 2, floats(small)],
        "gconet_segment_input": [detector, floats(images), 2, floats(shared), CHANNELS, floats(small)],
        "gconet_detect_device": [detector, floats(images), 2, floats(small), c.ffi.NULL],
    }
    del rooms, images, small, shared, info, text


@pytest.mark.parametrize(("function", "place", "name"), NULL_ARGUMENTS)
def test_null_pointers_are_refused(
    function: str, place: int, name: str, c: Library, right: dict[str, list[Any]]
) -> None:
    arguments = right[function]
    arguments[place] = c.ffi.NULL
    assert getattr(c.lib, function)(*arguments) == c.status("ERROR_USAGE")
    assert c.error() == f"{function}: {name} is NULL"


def test_every_pointer_argument_is_in_that_list(c: Library, right: dict[str, list[Any]]) -> None:
    may_be_null = {("gconet_load", 1), ("gconet_manifest", 3), ("gconet_detect_device", 4)}
    for function in right:
        kinds = c.ffi.typeof(getattr(c.lib, function)).args
        pointers = {place for place, kind in enumerate(kinds) if kind.kind == "pointer"}
        listed = {place for name, place, _ in NULL_ARGUMENTS if name == function}
        assert pointers - {place for name, place in may_be_null if name == function} == listed, function


@pytest.mark.parametrize("function", ["gconet_detect", "gconet_consensus", "gconet_segment", "gconet_prepare",
                                      "gconet_detect_input", "gconet_segment_input"])  # fmt: skip
@pytest.mark.parametrize(
    ("count", "complaint"), [(0, "at least one photo"), (2**64 - 1, "count is 1844"), (10**7, "coun")]
)
def test_numbers_of_photos_that_cannot_be_meant_are_refused(
    function: str, count: int, complaint: str, c: Library, right: dict[str, list[Any]]
) -> None:
    arguments = right[function]
    arguments[2] = count
    assert getattr(c.lib, function)(*arguments) == c.status("ERROR_USAGE")
    assert complaint in c.error()


@pytest.mark.parametrize(
    "function", ["gconet_consensus", "gconet_read_consensus", "gconet_segment", "gconet_segment_input"]
)
@pytest.mark.parametrize("length", [0, CHANNELS - 1, CHANNELS + 1, 2**64 - 1])
def test_a_consensus_of_another_length_is_refused(
    function: str, length: int, c: Library, right: dict[str, list[Any]]
) -> None:
    arguments = right[function]
    arguments[3 if function == "gconet_read_consensus" else 4] = length
    assert getattr(c.lib, function)(*arguments) == c.status("ERROR_USAGE")
    assert "consensus" in c.error()


@pytest.mark.parametrize(
    ("changes", "status", "complaint"),
    [
        ({"rgb": 0}, "ERROR_USAGE", r"photos\[1\]\.rgb is NULL"),
        ({"height": 0}, "ERROR_PHOTO", r"photos\[1\] has 90×0 pixels"),
        ({"width": 0}, "ERROR_PHOTO", r"photos\[1\] has 0×70 pixels"),
        ({"height": 2**63, "width": 2}, "ERROR_PHOTO", r"photos\[1\] has 2×9223372036854775808 pixels"),
        ({"width": 2**64 - 1}, "ERROR_PHOTO", r"photos\[1\] has 1844"),
        ({"row_stride": 269}, "ERROR_USAGE", r"row_stride is 269: a row of 90 pixels has 270 bytes"),
        ({"row_stride": 2**64 - 270}, "ERROR_USAGE", r"row_stride is 1844"),
    ],
    ids=str,
)
@pytest.mark.parametrize("function", ["gconet_detect", "gconet_consensus", "gconet_segment", "gconet_prepare"])
def test_photos_that_cannot_be_are_refused(
    function: str, changes: dict[str, int], status: str, complaint: str, c: Library, right: dict[str, list[Any]]
) -> None:
    arguments = right[function]
    for field, value in changes.items():
        setattr(arguments[1][1], field, c.ffi.cast("uint8_t *", value) if field == "rgb" else value)
    assert getattr(c.lib, function)(*arguments) == c.status(status)
    assert re.search(complaint, c.error())


def test_room_for_a_map_that_is_missing_or_crooked_is_refused(c: Library, right: dict[str, list[Any]]) -> None:
    arguments = right["gconet_detect"]
    place = arguments[3][1]
    for wrong, complaint in [(c.ffi.NULL, "maps[1] is NULL"), (c.ffi.cast("char *", place) + 1, "no multiple of 4")]:
        arguments[3][1] = c.ffi.cast("float *", wrong)
        assert c.lib.gconet_detect(*arguments) == c.status("ERROR_USAGE")
        assert complaint in c.error()


@pytest.mark.parametrize(("function", "place", "name"), [
    ("gconet_detect_input", 1, "images"), ("gconet_segment_input", 1, "images"),
    ("gconet_segment_input", 3, "consensus"), ("gconet_segment", 3, "consensus"),
])  # fmt: skip
def test_nan_is_refused(function: str, place: int, name: str, c: Library, right: dict[str, list[Any]]) -> None:
    arguments = right[function]
    arguments[place][CHANNELS - 1] = float("nan")
    assert getattr(c.lib, function)(*arguments) == c.status("ERROR_USAGE")
    assert c.error().startswith(f"{name}: it holds NaN or infinity")


def test_input_and_output_in_one_memory_is_refused(c: Library, right: dict[str, list[Any]]) -> None:
    arguments = right["gconet_detect_input"]
    arguments[3] = arguments[1] + PIXELS
    assert c.lib.gconet_detect_input(*arguments) == c.status("ERROR_USAGE")
    assert c.error().startswith("maps: it overlaps images in memory")


@pytest.mark.parametrize("function", [f"gconet_{name}" for name in calls.FUNCTIONS if name not in ("load", "free")])
def test_what_is_no_detector_is_refused(function: str, c: Library, bundle: Path, right: dict[str, list[Any]]) -> None:
    freed = c.load(bundle)
    c.lib.gconet_free(freed)
    c.lib.gconet_free(freed)  # twice is once
    c.lib.gconet_free(c.ffi.NULL)
    for pointer in (freed, c.ffi.cast("gconet_detector *", 7), c.ffi.cast("gconet_detector *", 2**64 - 1)):
        right[function][0] = pointer
        assert getattr(c.lib, function)(*right[function]) == c.status("ERROR_USAGE")
        assert "is no detector: it was freed, or never loaded" in c.error()


@pytest.mark.parametrize(
    ("options", "status", "complaint"),
    [
        ({"threads": -1}, "ERROR_USAGE", "threads must be at least 1, got -1"),
        ({"device": b"gpu"}, "ERROR_TARGET", "runs on device auto, cpu, cuda or cuda:N, not 'gpu'"),
        ({"provider": b"rocm"}, "ERROR_USAGE", "provider is cuda or tensorrt, not 'rocm'"),
        ({"signature": b""}, "ERROR_USAGE", "no key at "),
        ({"size": 0}, "ERROR_USAGE", "options have size 0: start from GCONET_OPTIONS_INIT"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], status: str, complaint: str, c: Library, bundle: Path
) -> None:
    texts = {name: c.ffi.new("char[]", text) for name, text in options.items() if isinstance(text, bytes)}
    given = c.ffi.new("gconet_options *", {"size": c.ffi.sizeof("gconet_options"), **options, **texts})
    found = c.ffi.new("gconet_detector **", c.ffi.cast("gconet_detector *", 7))
    assert c.lib.gconet_load(os.fsencode(bundle), given, found) == c.status(status)
    assert complaint in c.error()
    assert found[0] == c.ffi.NULL


def test_a_signature_can_be_required(c: Library, bundle: Path, tmp_path: Path) -> None:
    keys, folder = make_keys(tmp_path / "key"), Path(shutil.copytree(bundle, tmp_path / "b.gconet"))
    key = c.ffi.new("char[]", os.fsencode(keys.public))
    found = c.ffi.new("gconet_detector **")
    given = c.ffi.new("gconet_options *", {"size": c.ffi.sizeof("gconet_options"), "signature": key})
    assert c.lib.gconet_load(os.fsencode(folder), given, found) == c.status("ERROR_BUNDLE")
    assert "is not signed" in c.error()
    sign_manifest(folder, (folder / MANIFEST_NAME).read_bytes(), keys.private)
    c.lib.gconet_free(c.load(folder, signature=key))


def test_options_of_an_older_header_are_taken(c: Library, bundle: Path) -> None:
    size = c.ffi.offsetof("gconet_options", "threads")
    given = c.ffi.new("gconet_options *", {"size": size, "threads": -1})  # which that header did not have
    found = c.ffi.new("gconet_detector **")
    assert c.lib.gconet_load(os.fsencode(bundle), given, found) == 0
    c.lib.gconet_free(found[0])


def test_errors_of_files_have_their_status_and_one_line(
    c: Library, detector: Any, bundle: Path, tmp_path: Path
) -> None:
    found, shared = c.ffi.new("gconet_detector **"), np.zeros(CHANNELS, np.float32)
    for path in (
        tmp_path / "absent",
        tmp_path,
        bundle / "manifest.json",
        tmp_path / "a\nb",
        Path(os.fsdecode(b"/\xff")),
    ):
        assert c.lib.gconet_load(os.fsencode(path), c.ffi.NULL, found) == c.status("ERROR_BUNDLE")
        assert "\n" not in c.error()
    assert "/\\udcff" in c.error()  # UTF-8, whatever the path is
    absent = os.fsencode(tmp_path / ("x" * 200) / ("é" * 600))
    assert c.lib.gconet_load(absent, c.ffi.NULL, found) == c.status("ERROR_BUNDLE")
    assert len(c.error().encode()) in (1022, 1023)  # cut off, between characters
    path = os.fsencode(bundle / "manifest.json")
    assert c.lib.gconet_read_consensus(detector, path, c.floats(shared), CHANNELS) == c.status("ERROR_CONSENSUS")
    assert "is not a consensus" in c.error()


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (MemoryError(), "ERROR_MEMORY", "no memory left (MemoryError)"),
        (KeyboardInterrupt(), "ERROR_INTERNAL", "KeyboardInterrupt: KeyboardInterrupt"),
        (SystemExit(3), "ERROR_INTERNAL", "SystemExit: 3"),
        (ZeroDivisionError("one\ntwo"), "ERROR_INTERNAL", "ZeroDivisionError: one"),
        (gr.CheckpointError("odd"), "ERROR_INTERNAL", "odd"),
    ],
    ids=repr,
)
def test_whatever_is_raised_stays_behind_the_border(
    error: BaseException,
    status: str,
    text: str,
    c: Library,
    right: dict[str, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(gr.Detector, "stream", fail)
    assert c.lib.gconet_detect(*right["gconet_detect"]) == c.status(status)
    assert c.error() == text
    assert capfd.readouterr() == ("", "")


def test_an_error_stays_until_the_next_one(c: Library, detector: Any, right: dict[str, list[Any]]) -> None:
    assert c.lib.gconet_detect(c.ffi.NULL, *right["gconet_detect"][1:]) == c.status("ERROR_USAGE")
    said = c.error()
    assert c.lib.gconet_describe(*right["gconet_describe"]) == 0
    c.lib.gconet_free(detector)
    assert c.error() == said == "gconet_detect: detector is NULL"
