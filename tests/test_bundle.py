"""Bundles open only when every byte is as built; writing one is all or nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gconet.engines.bundle_writer import describe_files, staged_bundle, write_manifest
from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.errors import BundleError, UsageError
from gconet.runtime.manifest import MANIFEST_NAME, SCHEMA, FileEntry, Manifest
from gconet.runtime.preprocess import Preprocessing

ARTEFACTS = {"detect.xml": b"<net/>", "detect.bin": bytes(range(100))}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with two artefacts that no engine needs to read."""
    folder = tmp_path / "a b" / "ü.gconet"
    with staged_bundle(folder) as staging:
        for name, content in ARTEFACTS.items():
            (staging / name).write_bytes(content)
        files = describe_files(staging / name for name in ARTEFACTS)
        write_manifest(staging, manifest(files))
    return folder


def manifest(files: dict[str, FileEntry]) -> Manifest:
    return Manifest(
        target="openvino",
        precision="bf16",
        target_version="2026.1",
        preprocessing=Preprocessing(320, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)),
        max_group=7,
        files=files,
        architecture={"gam": True, "encoder_channels": [4, 6, 8, 12, 16]},
        checkpoint={"provenance": "tests"},
        opset=20,
        created="2026-01-01T00:00:00+00:00",
        compute_capabilities=("8.9", "12.0"),
        parity={"max": 1e-6},
        latency={"not_measured": "tests"},
        tools={"numpy": "2.0"},
    )


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def refusal(folder: Path) -> str:
    """The message of the BundleError that opening raises; always one line that names the bundle."""
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_what_was_written_is_what_is_read(bundle: Path) -> None:
    opened = open_bundle(str(bundle))
    assert opened.manifest == manifest(describe_files(bundle / name for name in ARTEFACTS))
    assert opened.file(".bin") == bundle / "detect.bin"
    assert opened.file(".xml").read_bytes() == ARTEFACTS["detect.xml"]


def test_an_artefact_is_not_taken_for_one_whose_name_ends_like_its_own(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    (entry, *_) = manifest.files.values()
    opened = Bundle(bundle, dataclasses.replace(manifest, files=dict.fromkeys(["not-detect.xml", "detect.xml"], entry)))
    assert opened.file("detect.xml") == bundle / "detect.xml"
    assert opened.file(".xml") == bundle / "not-detect.xml"


def test_an_artefact_the_manifest_does_not_list_is_not_served(bundle: Path) -> None:
    (bundle / "detect.onnx").write_bytes(b"smuggled in")
    with pytest.raises(BundleError, match=r"holds no \.onnx file"):
        open_bundle(bundle).file(".onnx")


@pytest.mark.parametrize("name", ARTEFACTS)
@pytest.mark.parametrize("position", [0, -1])
def test_one_flipped_bit_is_noticed(name: str, position: int, bundle: Path) -> None:
    content = bytearray(ARTEFACTS[name])
    content[position] ^= 1
    (bundle / name).write_bytes(content)
    assert f"{name} is not the file that was built" in refusal(bundle)


@pytest.mark.parametrize("content", [b"", ARTEFACTS["detect.bin"][:-1], ARTEFACTS["detect.bin"] + b"\0"])
def test_an_artefact_of_another_length_is_noticed(content: bytes, bundle: Path) -> None:
    (bundle / "detect.bin").write_bytes(content)
    assert "detect.bin is not the file that was built" in refusal(bundle)


def remove(path: Path) -> None:
    path.unlink()


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_link(path: Path) -> None:
    path.rename(path.parents[1] / path.name)
    path.symlink_to(path.parents[1] / path.name)


@pytest.mark.parametrize("alter", [remove, become_a_folder, become_a_link])
def test_an_artefact_that_is_no_plain_file_is_refused(alter: Callable[[Path], None], bundle: Path) -> None:
    alter(bundle / "detect.bin")
    assert "detect.bin is missing or not a plain file" in refusal(bundle)


def test_an_artefact_whose_name_no_file_can_have_is_refused(bundle: Path) -> None:
    edit_manifest(bundle, files={"n" * 300: {"sha256": "0" * 64, "bytes": 100}})
    assert "cannot look at" in refusal(bundle)


def test_an_unreadable_artefact_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path) -> FileEntry:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("gconet.runtime.bundle.describe_file", deny)
    assert "Permission denied" in refusal(bundle)


@pytest.mark.parametrize("name", ["absent.gconet", "file.gconet", "n" * 300], ids=["absent", "file", "long name"])
def test_a_path_that_is_no_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.gconet").touch()
    refusal(tmp_path / name)


def test_a_folder_without_a_manifest_is_no_bundle(bundle: Path) -> None:
    (bundle / MANIFEST_NAME).unlink()
    assert "is not a bundle" in refusal(bundle)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b'"manifest"', b"{}", b'{"schema": 1}', b"[" * 100_000, b"\xff\xfe"],
    ids=lambda text: repr(text[:20]),
)
def test_a_manifest_that_is_none_is_refused(text: bytes, bundle: Path) -> None:
    (bundle / MANIFEST_NAME).write_bytes(text)
    refusal(bundle)


@pytest.mark.parametrize(
    "key", ["schema", "target", "precision", "preprocessing", "max_group", "files", "checkpoint", "opset"]
)
def test_a_manifest_that_lacks_a_key_is_refused(key: str, bundle: Path) -> None:
    document = json.loads((bundle / MANIFEST_NAME).read_text("utf-8"))
    del document[key]
    (bundle / MANIFEST_NAME).write_text(json.dumps(document), "utf-8")
    assert f"damaged {MANIFEST_NAME}" in refusal(bundle)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "1"),
        ("schema", None),
        ("target", 5),
        ("target", ["openvino"]),
        ("precision", None),
        ("max_group", 0),
        ("max_group", 2**31),
        ("max_group", "7"),
        ("max_group", 7.5),
        ("opset", "20"),
        ("architecture", []),
        ("architecture", None),
        ("architecture", "GCoNet"),
        ("checkpoint", "tests"),
        ("parity", 0.1),
        ("preprocessing", None),
        ("preprocessing", {"size": 225, "mean": [0, 0, 0], "std": [1, 1, 1]}),
        ("files", ["detect.bin"]),
        ("files", {"detect.bin": "0" * 64}),
        ("files", {"detect.bin": {"sha256": "0" * 63, "bytes": 100}}),
        ("files", {"detect.bin": {"sha256": "0" * 64, "bytes": "100"}}),
        ("files", {"detect.bin": {"sha256": None, "bytes": 100}}),
        ("compute_capabilities", 8.9),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(key: str, value: Any, bundle: Path) -> None:
    edit_manifest(bundle, **{key: value})
    assert f"damaged {MANIFEST_NAME}" in refusal(bundle)


@pytest.mark.parametrize(
    "name", ["../detect.bin", "..", "sub/detect.bin", "sub\\detect.bin", "{root}/detect.bin", "", ".hidden", "a\nb"]
)
def test_a_file_name_that_could_leave_the_bundle_is_refused(name: str, bundle: Path) -> None:
    name = name.format(root=bundle)
    entry = json.loads((bundle / MANIFEST_NAME).read_text("utf-8"))["files"]["detect.bin"]
    shutil.copy(bundle / "detect.bin", bundle.parent / "detect.bin")
    edit_manifest(bundle, files={name: entry})
    assert "is not a plain file name" in refusal(bundle)


def test_a_manifest_from_the_future_asks_for_an_update(bundle: Path) -> None:
    edit_manifest(bundle, schema=SCHEMA + 1, target={"name": "a shape this version does not know"})
    assert "update gconet-deploy" in refusal(bundle)


def test_keys_this_version_does_not_know_are_ignored(bundle: Path) -> None:
    before = open_bundle(bundle).manifest
    edit_manifest(bundle, licence="MIT", accuracy={"mae": 0.1})
    assert open_bundle(bundle).manifest == before


class Interrupted(BaseException):
    """Stands for Ctrl-C, which is no Exception either."""


def build_until(error: BaseException, out: Path) -> None:
    with staged_bundle(out) as staging:
        (staging / "detect.bin").write_bytes(b"half")
        raise error


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (RuntimeError("a bug"), RuntimeError),
        (Interrupted(), Interrupted),
        (OSError(28, "No space left on device"), UsageError),
    ],
)
def test_a_failed_build_leaves_nothing(error: BaseException, seen: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(seen):
        build_until(error, tmp_path / "x.gconet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("a bug"), Interrupted()])
def test_a_failed_build_keeps_the_earlier_bundle(error: BaseException, bundle: Path) -> None:
    before = open_bundle(bundle)
    with pytest.raises(type(error)):
        build_until(error, bundle)
    assert open_bundle(bundle) == before
    assert list(bundle.parent.iterdir()) == [bundle]


def test_an_earlier_bundle_stays_if_the_new_one_cannot_take_its_place(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_bundle(bundle)
    rename = Path.rename

    def fail_for_staging(path: Path, target: Path) -> Path:
        if "partial" in path.name:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_staging)
    with pytest.raises(UsageError, match="No space left on device"), staged_bundle(bundle):
        pass
    assert open_bundle(bundle) == before
    assert list(bundle.parent.iterdir()) == [bundle]


def test_a_new_bundle_replaces_all_of_an_earlier_one(bundle: Path) -> None:
    with staged_bundle(bundle) as staging:
        assert open_bundle(bundle).manifest.max_group == 7  # the earlier one serves until the end
        (staging / "plan.bin").write_bytes(b"new")
        write_manifest(staging, manifest(describe_files([staging / "plan.bin"])))
    assert {path.name for path in bundle.iterdir()} == {MANIFEST_NAME, "plan.bin"}
    assert open_bundle(bundle).file(".bin").read_bytes() == b"new"
    assert list(bundle.parent.iterdir()) == [bundle]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_bundle_is_not_replaced(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "precious"
    kept = out / "letters.txt" if kind == "folder" else out
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("dear")
    with pytest.raises(UsageError, match="is not a bundle"), staged_bundle(out):
        pass
    assert kept.read_text() == "dear"
    assert list(tmp_path.iterdir()) == [out]


def test_a_bundle_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"), staged_bundle(tmp_path / "file" / "x.gconet"):
        pass
