"""Arguments of gconet.h's functions that cannot be: a status and a line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from capi_library import CHANNELS, Library
from conftest import TINY_SIZE

from gconet.runtime.capi import calls

PIXELS = TINY_SIZE**2

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
def test_what_is_no_detector_is_refused(function: str, c: Library, c_bundle: Path, right: dict[str, list[Any]]) -> None:
    freed = c.load(c_bundle)
    c.lib.gconet_free(freed)
    c.lib.gconet_free(freed)  # twice is once
    c.lib.gconet_free(c.ffi.NULL)
    for pointer in (freed, c.ffi.cast("gconet_detector *", 7), c.ffi.cast("gconet_detector *", 2**64 - 1)):
        right[function][0] = pointer
        assert getattr(c.lib, function)(*right[function]) == c.status("ERROR_USAGE")
        assert "is no detector: it was freed, or never loaded" in c.error()
