"""Options of gconet_load, and errors: whatever goes wrong is a status and a line of UTF-8."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capi_library import CHANNELS, Library

import gconet.runtime as gr
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.signing import make_keys, sign_manifest


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
    options: dict[str, Any], status: str, complaint: str, c: Library, c_bundle: Path
) -> None:
    texts = {name: c.ffi.new("char[]", text) for name, text in options.items() if isinstance(text, bytes)}
    given = c.ffi.new("gconet_options *", {"size": c.ffi.sizeof("gconet_options"), **options, **texts})
    found = c.ffi.new("gconet_detector **", c.ffi.cast("gconet_detector *", 7))
    assert c.lib.gconet_load(os.fsencode(c_bundle), given, found) == c.status(status)
    assert complaint in c.error()
    assert found[0] == c.ffi.NULL


def test_a_signature_can_be_required(c: Library, c_bundle: Path, tmp_path: Path) -> None:
    keys, folder = make_keys(tmp_path / "key"), Path(shutil.copytree(c_bundle, tmp_path / "b.gconet"))
    key = c.ffi.new("char[]", os.fsencode(keys.public))
    found = c.ffi.new("gconet_detector **")
    given = c.ffi.new("gconet_options *", {"size": c.ffi.sizeof("gconet_options"), "signature": key})
    assert c.lib.gconet_load(os.fsencode(folder), given, found) == c.status("ERROR_BUNDLE")
    assert "is not signed" in c.error()
    sign_manifest(folder, (folder / MANIFEST_NAME).read_bytes(), keys.private)
    c.lib.gconet_free(c.load(folder, signature=key))


def test_options_of_an_older_header_are_taken(c: Library, c_bundle: Path) -> None:
    size = c.ffi.offsetof("gconet_options", "threads")
    given = c.ffi.new("gconet_options *", {"size": size, "threads": -1})  # which that header did not have
    found = c.ffi.new("gconet_detector **")
    assert c.lib.gconet_load(os.fsencode(c_bundle), given, found) == 0
    c.lib.gconet_free(found[0])


def test_errors_of_files_have_their_status_and_one_line(
    c: Library, c_detector: Any, c_bundle: Path, tmp_path: Path
) -> None:
    found, shared = c.ffi.new("gconet_detector **"), np.zeros(CHANNELS, np.float32)
    for path in (
        tmp_path / "absent",
        tmp_path,
        c_bundle / "manifest.json",
        tmp_path / "a\nb",
        Path(os.fsdecode(b"/\xff")),
    ):
        assert c.lib.gconet_load(os.fsencode(path), c.ffi.NULL, found) == c.status("ERROR_BUNDLE")
        assert "\n" not in c.error()
    assert "/\\udcff" in c.error()  # UTF-8, whatever the path is
    absent = os.fsencode(tmp_path / ("x" * 200) / ("é" * 600))
    assert c.lib.gconet_load(absent, c.ffi.NULL, found) == c.status("ERROR_BUNDLE")
    assert len(c.error().encode()) in (1022, 1023)  # cut off, between characters
    path = os.fsencode(c_bundle / "manifest.json")
    assert c.lib.gconet_read_consensus(c_detector, path, c.floats(shared), CHANNELS) == c.status("ERROR_CONSENSUS")
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


def test_an_error_stays_until_the_next_one(c: Library, c_detector: Any, right: dict[str, list[Any]]) -> None:
    assert c.lib.gconet_detect(c.ffi.NULL, *right["gconet_detect"][1:]) == c.status("ERROR_USAGE")
    said = c.error()
    assert c.lib.gconet_describe(*right["gconet_describe"]) == 0
    c.lib.gconet_free(c_detector)
    assert c.error() == said == "gconet_detect: detector is NULL"
