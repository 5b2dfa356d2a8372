"""A consensus on disk, and the commands that write and use it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import gconet.runtime as gr
from gconet.runtime import cli
from gconet.runtime.command_line import run
from gconet.runtime.consensus_file import HEADER
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.preprocess import Photo, to_bytes

Bundles = Callable[[str, str], Path]


@pytest.fixture
def bundle(tiny_bundle: Bundles) -> Path:
    return tiny_bundle("onnxruntime", "fp32")


@pytest.fixture
def photos(example_photos: list[Photo], tmp_path: Path) -> Path:
    """A folder of three photos."""
    folder = tmp_path / "chairs"
    folder.mkdir()
    for name, photo in zip("abc", example_photos, strict=False):
        Image.fromarray(photo).save(folder / f"{name}.png")
    return folder


def other_network(bundle: Path, folder: Path) -> Path:
    """A copy of a bundle that says it is of another checkpoint."""
    copy = shutil.copytree(bundle, folder / "other.gconet")
    manifest = json.loads((copy / MANIFEST_NAME).read_text("utf-8"))
    manifest["checkpoint"]["sha256"] = "0" * 64
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest), "utf-8")
    return copy


def test_a_consensus_is_read_as_it_was_written(bundle: Path, tmp_path: Path) -> None:
    opened, vector = gr.open_bundle(bundle), np.arange(16, dtype=np.float32)
    gr.save_consensus(tmp_path / "c.safetensors", opened, vector, ["a b.jpg", Path("é\n.png")])
    read = gr.load_consensus(tmp_path / "c.safetensors", opened)
    np.testing.assert_array_equal(read.vector, vector)
    assert read.photos == ("a b.jpg", "é\n.png")
    assert len(read.bundle) == 64


def test_another_networks_consensus_is_refused(bundle: Path, tmp_path: Path) -> None:
    gr.save_consensus(tmp_path / "c.safetensors", gr.open_bundle(bundle), np.zeros(16, np.float32))
    with pytest.raises(gr.ConsensusError, match=r"another network .*gconet consensus PHOTOS --bundle"):
        gr.load_consensus(tmp_path / "c.safetensors", gr.open_bundle(other_network(bundle, tmp_path)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: save_file({"consensus": np.zeros(16, np.float32)}, path),
        lambda path: save_file({"consensus": np.zeros(16, np.float32)}, path, {HEADER: "[]"}),
        lambda path: save_file({"other": np.zeros(16, np.float32)}, path, {HEADER: header()}),
        lambda path: save_file({"consensus": np.full(16, np.nan, np.float32)}, path, {HEADER: header()}),
        lambda path: save_file({"consensus": np.zeros((4, 4), np.float32)}, path, {HEADER: header()}),
        lambda path: save_file({"consensus": np.zeros(1, np.float32)}, path, {HEADER: header()}),
        lambda path: save_file({"consensus": np.zeros(16, np.float16)}, path, {HEADER: header()}),
        lambda path: write_huge(path, 10**12),
    ],
    ids=[
        *("empty", "cut off", "no header", "no such header", "no vector", "not finite", "a matrix", "another length"),
        *("half", "huge"),
    ],
)
def test_a_file_that_is_no_consensus_is_one_line(spoil: Callable[[Path], object], bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    gr.save_consensus(path, gr.open_bundle(bundle), np.zeros(16, np.float32))
    spoil(path)
    with pytest.raises(gr.ConsensusError, match=r"c.safetensors is not a consensus \(.*gconet consensus") as caught:
        gr.load_consensus(path, gr.open_bundle(bundle))
    assert "\n" not in str(caught.value)


def test_a_consensus_from_the_future_and_one_that_is_missing(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(gr.ConsensusError, match=r"no consensus at .*gconet consensus PHOTOS --out"):
        gr.load_consensus(path, gr.open_bundle(bundle))
    save_file({"consensus": np.zeros(16, np.float32)}, path, {HEADER: header(schema=2)})
    with pytest.raises(gr.ConsensusError, match="schema 2, this version reads up to 1: update"):
        gr.load_consensus(path, gr.open_bundle(bundle))


def write_huge(path: Path, size: int) -> None:
    """A file that says, and seems, to hold a vector of so many bytes."""
    tensor = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    described = json.dumps({"__metadata__": {HEADER: header()}, "consensus": tensor}).encode()
    with path.open("wb") as file:
        file.write(len(described).to_bytes(8, "little") + described)
        file.truncate(8 + len(described) + size)


def header(schema: int = 1) -> str:
    return json.dumps({"schema": schema, "bundle": "", "checkpoint": "unknown", "size": 64, "photos": []})


def test_the_commands_keep_a_consensus_and_find_it_again(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, maps = tmp_path / "chair.safetensors", tmp_path / "maps"
    assert run(cli.main, ["consensus", str(photos), "--bundle", str(bundle), "--out", str(kept)]) == 0
    assert capsys.readouterr().out == f"consensus of 3 photos in {kept}\n"
    detector = gr.load(bundle)
    saved = gr.load_consensus(kept, detector.bundle)
    assert saved.photos == tuple(str(photos / name) for name in ("a.png", "b.png", "c.png"))
    np.testing.assert_array_equal(saved.vector, detector.consensus(list(saved.photos)))

    new = [str(photos / "b.png")]
    arguments = ["detect", *new, "--consensus", str(kept), "--bundle", str(bundle), "--out", str(maps)]
    assert run(cli.main, arguments) == 0
    with Image.open(maps / "b.png") as saliency:
        np.testing.assert_array_equal(np.asarray(saliency), to_bytes(detector.segment(new, saved.vector)[0]))

    assert run(cli.main, ["consensus", str(photos), "--bundle", str(bundle), "--out", str(kept)]) == 2
    assert "exists already: choose another --out, or pass --overwrite" in capsys.readouterr().err
    other = other_network(bundle, tmp_path)
    assert run(cli.main, [*arguments[:-2], "--out", str(tmp_path / "more"), "--bundle", str(other)]) == 2
    assert "was made by another network" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["detect", "consensus"])
def test_an_unreadable_photo_is_named_and_ends_the_run_or_is_left_out(
    command: str, bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"no photo")
    out = tmp_path / "out"
    arguments = [command, str(photos), "--bundle", str(bundle), "--out", str(out)]
    assert run(cli.main, arguments) == 2
    assert "broken.jpg is not a photo" in capsys.readouterr().err
    assert not out.exists()
    assert run(cli.main, [*arguments, "--skip-unreadable"]) == 0
    assert "gconet: left out: " in capsys.readouterr().err
    if command == "detect":
        assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "c.png"]
    for photo in photos.iterdir():
        photo.write_bytes(b"no photo")
    assert run(cli.main, [*arguments, "--skip-unreadable", "--overwrite"]) == 2
    assert "none of the photos can be read" in capsys.readouterr().err


def test_a_consensus_is_of_one_group(bundle: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(photos, photos / "more")
    assert run(cli.main, ["consensus", str(photos), "--bundle", str(bundle), "--out", "c.safetensors"]) == 2
    assert "a consensus is of one group, these are 2" in capsys.readouterr().err


def test_a_group_done_in_blocks_has_the_maps_of_one_call(
    bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, blocks = tmp_path / "whole", tmp_path / "blocks"
    assert run(cli.main, ["detect", str(photos), "--bundle", str(bundle), "--out", str(whole)]) == 0
    monkeypatch.setattr("gconet.runtime.encoded_group.BLOCK_PIXELS", 2 * 64**2)
    monkeypatch.setattr("gconet.runtime.large_groups.ONE_CALL_PIXELS", 64**2)
    assert run(cli.main, ["detect", str(photos), "--bundle", str(bundle), "--out", str(blocks)]) == 0
    for path in whole.iterdir():
        with Image.open(path) as one, Image.open(blocks / path.name) as other:
            difference = np.asarray(one).astype(int) - np.asarray(other)
        assert np.abs(difference).max() <= 1  # a grey value on the edge between two
