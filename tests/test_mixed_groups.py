"""Mixed groups show two objects, one of them shared; what counts as leaving the other alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapes import make_data

from gconet.bench import mixed_groups, suppression
from gconet.runtime.errors import PhotoError, UsageError


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups of four, two photos of each with another group's shape beside."""
    folder = tmp_path_factory.mktemp("mixed")
    out = folder / "mixed"
    assert mixed_groups.main(["--data", str(make_data(folder / "data")), "--size", "96", "--out", str(out)]) == 0
    return out


def _mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)) > 127


def test_every_second_photo_shows_the_other_object_and_masks_never_overlap(mixed: Path) -> None:
    photos = sorted((mixed / "images").rglob("*.jpg"))
    assert len(photos) == 12
    for photo in photos:
        with Image.open(photo) as picture:
            assert picture.size == (96, 96)
        name = photo.relative_to(mixed / "images").with_suffix(".png")
        shared, other = _mask(mixed / "gts" / name), _mask(mixed / "others" / name)
        assert shared.any()
        assert other.any() == (int(photo.stem) % 2 == 1)
        assert not (shared & other).any()


def test_marking_both_objects_and_one_of_them(mixed: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    found = {}
    for method in ("both", "shared", "other"):
        for path in (mixed / "gts").rglob("*.png"):
            name = path.relative_to(mixed / "gts")
            shared, other = (np.asarray(Image.open(mixed / kind / name)) for kind in ("gts", "others"))
            picture = {"both": np.maximum(shared, other), "shared": shared, "other": other}[method]
            target = tmp_path / method / name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(target)
        arguments = ["--pred", str(tmp_path / method), "--mixed", str(mixed), "--json", str(report)]
        assert suppression.main(arguments) == 0
        found[method] = json.loads(report.read_text())["all"]
    assert {method: (row["photos"], row["shared"], row["other"]) for method, row in found.items()} == {
        "both": (6, 1.0, 1.0), "shared": (6, 1.0, 0.0), "other": (6, 0.0, 1.0),
    }  # fmt: skip
    assert found["shared"]["iou"] == 1
    assert found["other"]["iou"] == 0
    assert 0.2 < found["both"]["iou"] < 0.8


def test_what_cannot_be_mixed_is_one_line(mixed: Path, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    new = str(tmp_path / "new")
    for arguments, reason in (
        (["--data", str(data), "--out", str(mixed)], "exists already"),
        (["--data", str(data), "--groups", "toys/disc", "--out", new], "at least two --groups"),
        (["--data", str(data), "--groups", "toys/disc", "toys/cube", "--out", new], "no group toys/cube"),
        (["--data", str(data), "--groups", "toys/disc", "toys/square", "toys/disc", "--out", new], "named twice"),
        (["--data", str(tmp_path), "--out", new], "has no folder images/"),
    ):
        with pytest.raises(UsageError, match=reason):
            mixed_groups.main(arguments)
    with pytest.raises(SystemExit, match="2"):
        mixed_groups.main(["--data", str(data), "--size", "2", "--out", new])
    assert not Path(new).exists()


@pytest.mark.parametrize("bad", ["images/toys/triangle/3.jpg", "gts/toys/triangle/3.png"])
def test_a_bad_picture_leaves_nothing_behind(bad: str, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    (data / bad).write_bytes(b"no photo")
    out = tmp_path / "below" / "mixed"
    with pytest.raises(PhotoError, match=f"{bad} is not a photo"):
        mixed_groups.main(["--data", str(data), "--out", str(out)])
    assert list(out.parent.iterdir()) == []
