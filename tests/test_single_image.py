"""The single-image baseline: its maps, and what it will not do to a user's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from gconet.bench.single_image import main
from gconet.runtime.errors import UsageError


def model(folder: Path, shape: Sequence[int | str]) -> Path:
    """A network whose map is the first channel of its input."""
    path = folder / "model.onnx"
    graph = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        first (float[{",".join(map(str, shape))}] images) => (float[n, c, h, w] maps)
        <int64[1] start = {{0}}, int64[1] end = {{1}}, int64[1] axis = {{1}}>
        {{ maps = Slice(images, start, end, axis) }}"""
    )
    onnx.save(graph, path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos whose left half is brighter than their right half."""
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = np.full((20, 30, 3), 50, np.uint8)
    photo[:, :15] = 200
    for name in ("a.png", "b.png"):
        Image.fromarray(photo).save(folder / name)
    return folder


def test_maps_are_stretched_and_of_the_photos_size(photos: Path, tmp_path: Path) -> None:
    arguments = [str(photos), "--model", str(model(tmp_path, (1, 3, 16, 16))), "--out", str(tmp_path / "maps")]
    assert main(arguments) == 0
    for name in ("a.png", "b.png"):
        saliency = np.asarray(Image.open(tmp_path / "maps" / name))
        assert saliency.shape == (20, 30)
        assert (saliency[:, :10] == 255).all()
        assert (saliency[:, -10:] == 0).all()
    with pytest.raises(UsageError, match="exists already"):
        main(arguments)
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--skip-existing"]])
def test_photos_are_never_replaced(flags: list[str], photos: Path, tmp_path: Path) -> None:
    before = [path.read_bytes() for path in sorted(photos.iterdir())]
    with pytest.raises(UsageError, match="would replace a photo"):
        main([str(photos), "--model", str(model(tmp_path, (1, 3, 16, 16))), "--out", str(photos), *flags])
    assert [path.read_bytes() for path in sorted(photos.iterdir())] == before


@pytest.mark.parametrize(
    "shape", [("n", 3, 16, 16), (1, 3, "h", "w"), (1, 3, 16, 32), (1, 1, 16, 16), (1, 16)], ids=str
)
def test_a_model_of_another_input_is_refused(shape: Sequence[int | str], photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"export it with one float input \(1, 3, S, S\)") as caught:
        main([str(photos), "--model", str(model(tmp_path, shape)), "--out", str(tmp_path / "maps")])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "maps").exists()


def test_a_file_that_is_no_model_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot load"):
        main([str(photos), "--model", str(photos / "a.png"), "--out", str(tmp_path / "maps")])
