"""Readers of files that others made, on bytes that nobody meant: read, or refused by a GconetError.

The long run is `python bench/fuzz.py`; here are the same readers, on a fixed set of inputs.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gconet.bench import fuzz
from gconet.bench.fuzz_bundles import example_manifest
from gconet.bench.fuzz_targets import FUZZ_TARGETS, accepts
from gconet.runtime.errors import GconetError, PhotoError, UsageError
from gconet.runtime.manifest import Manifest
from gconet.runtime.photos import find_groups, read_photo
from gconet.train.model import Architecture

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of odd metadata
# Derandomised: the same inputs every time. The decoders' speed says nothing.
FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def seeds() -> dict[str, list[bytes]]:
    """Files that each reader accepts."""
    found = {}
    for name, target in FUZZ_TARGETS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = target.seeds(Path(folder))
    return found


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def test_the_long_run_knows_every_reader() -> None:
    assert tuple(FUZZ_TARGETS) == fuzz.TARGETS


@pytest.mark.parametrize("name", FUZZ_TARGETS)
def test_seeds_are_accepted(name: str, seeds: dict[str, list[bytes]], tmp_path: Path) -> None:
    accepted = [accepts(FUZZ_TARGETS[name], seed, tmp_path) for seed in seeds[name] if b"PRIVATE" not in seed]
    if name == "signature":
        assert not any(accepted)  # made with another key
    else:
        assert all(accepted)


edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "cut"]), st.integers(0, 2**20), st.binary(min_size=1, max_size=9)
    ),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """Bytes with some exchanged, put in, taken out or cut off."""
    for kind, where, new in changes:
        position = where % (len(data) + 1)
        after = {"flip": len(new), "insert": 0, "delete": len(new), "cut": len(data)}[kind]
        data = data[:position] + (new if kind in ("flip", "insert") else b"") + data[position + after :]
    return data


@pytest.mark.parametrize("name", FUZZ_TARGETS)
def test_damaged_files_are_read_or_refused(name: str, seeds: dict[str, list[bytes]], scratch: Path) -> None:
    folder = scratch / name
    folder.mkdir(exist_ok=True)

    @FIXED
    @given(number=st.integers(0, len(seeds[name]) - 1), changes=edits)
    def read(number: int, changes: list[tuple[str, int, bytes]]) -> None:
        accepts(FUZZ_TARGETS[name], edited(seeds[name][number], changes), folder)

    read()


@pytest.mark.parametrize("name", FUZZ_TARGETS)
def test_any_bytes_are_read_or_refused(name: str, scratch: Path) -> None:
    folder = scratch / name
    folder.mkdir(exist_ok=True)

    @FIXED
    @given(data=st.binary(max_size=200))
    def read(data: bytes) -> None:
        accepts(FUZZ_TARGETS[name], data, folder)

    read()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def document(scratch: Path) -> dict[str, Any]:
    """A manifest as parsed JSON."""
    return json.loads(example_manifest(scratch).to_json())


def nested_keys(document: dict[str, Any]) -> list[tuple[str, ...]]:
    """Where values are in a manifest."""
    return [(key,) for key in document] + [
        (key, below) for key, value in document.items() if isinstance(value, dict) for below in value
    ]


def test_manifests_with_any_value_anywhere_are_read_or_refused(document: dict[str, Any]) -> None:
    @settings(FIXED, max_examples=600)
    @given(where=st.sampled_from(nested_keys(document)), value=anything)
    def read(where: tuple[str, ...], value: Any) -> None:
        altered = json.loads(json.dumps(document))
        place = altered
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value
        try:
            manifest = Manifest.from_json(json.dumps(altered), "bundle")
        except GconetError:
            return
        assert all(isinstance(capability, str) for capability in manifest.compute_capabilities)
        assert np.isfinite([*manifest.preprocessing.mean, *manifest.preprocessing.std]).all()
        json.loads(manifest.to_json())

    read()


@FIXED
@given(document=st.fixed_dictionaries({}, optional={
    **dict.fromkeys(("gam", "gcm", "acm", "classes", "decoder_channels", "other"), anything),
    "encoder_channels": anything | st.lists(st.integers(), min_size=5, max_size=5),
}))  # fmt: skip
def test_architectures_from_files_are_bounded(document: dict[str, Any]) -> None:
    try:
        architecture = Architecture.from_dict(document)
    except (KeyError, TypeError, ValueError):
        return
    assert max(architecture.encoder_channels) <= 65536


# File systems take any byte but these two; names that are no text come back as surrogates.
names = st.binary(min_size=1, max_size=40).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in (b".", b"..")
)
TREE = st.dictionaries(
    names.map(lambda name: os.fsdecode(name + b".jpg")) | names.map(os.fsdecode),
    st.sampled_from(["photo", "empty", "text", "folder", "circle", "nowhere", "up"]),
    max_size=5,
)


@settings(FIXED, max_examples=100)
@given(tree=TREE)
def test_folders_of_anything_are_groups_or_refused(tree: dict[str, str]) -> None:
    photo = FUZZ_TARGETS["photo"].seeds(Path())[0]
    with tempfile.TemporaryDirectory() as root:
        for name, kind in tree.items():
            path = Path(root, name)
            if kind == "folder":
                path.mkdir()
            elif kind in ("circle", "nowhere", "up"):
                path.symlink_to({"circle": name, "nowhere": "absent", "up": ".."}[kind])
            else:
                path.write_bytes({"photo": photo, "empty": b"", "text": b"dear diary"}[kind])
        try:
            groups = find_groups([root])
        except PhotoError:
            return
        for path in (path for group in groups for path in group.photos):
            assert path.suffix.lower() == ".jpg" or path.suffix
            if tree.get(path.name) == "photo":
                assert read_photo(path).shape == (6, 7, 3)
            elif path.parent == Path(root):
                with pytest.raises(PhotoError):
                    read_photo(path)


def test_the_long_run_counts_what_it_tried(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheels for this platform")
    report = tmp_path / "fuzz.json"
    words = ["--target", "manifest", "--minutes", "0.05", "--json", str(report), "--out", str(tmp_path / "crashes")]
    np.ones(2**26)  # half a gigabyte: what this process held is none of the fuzzer's memory
    assert fuzz.main([*words, "--memory-mb", "400"]) == 0
    (row,) = json.loads(report.read_bytes())["targets"]
    assert row["runs"] > 0
    assert row["accepted"] + row["refused"] >= row["runs"] - 1
    assert row["accepted"] > 0
    assert not row["crashes"]


def test_the_shortest_run_ends(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheels for this platform")
    report = tmp_path / "fuzz.json"
    words = ["--target", "manifest", "--minutes", "0.001", "--json", str(report), "--out", str(tmp_path / "crashes")]
    assert fuzz.main(words) == 0
    document = json.loads(report.read_bytes())
    assert document["targets"][0]["seconds"] >= 1
    assert document["environment"]["libraries"]["atheris"]


def test_an_interrupted_run_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_process: subprocess.Popen[str]) -> None:
        while not mark.exists():
            time.sleep(0.05)
        raise KeyboardInterrupt

    mark = tmp_path / "mark"
    monkeypatch.setattr(subprocess.Popen, "communicate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fuzz._run(["sh", "-c", f"sh -c 'echo $$ > {mark}; sleep 60'; exit $?"])
    number = int(mark.read_text())
    for _ in range(100):
        if not Path(f"/proc/{number}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{number}").exists() or "(zombie)" in Path(f"/proc/{number}/status").read_text()


def test_where_crashes_cannot_go_is_told(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheels for this platform")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        fuzz.main(["--target", "manifest", "--out", str(tmp_path / "file")])
