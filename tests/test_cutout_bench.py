"""The bench of cut-outs and thumbnails: its measures on masks worked out by hand, its files on a tiny bundle."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_objects import ellipses, map_of, photo_of

from gconet.bench import cutouts, large_cutout
from gconet.bench.cutout_rows import score_cutouts, score_thumbnails
from gconet.bench.mask_scores import MaskScore, border, boundary_f, score_mask
from gconet.runtime.command_line import run
from gconet.runtime.preprocess import to_bytes

pytest.importorskip("cv2", reason="cut-outs need OpenCV: pip install 'gconet-deploy[pictures]'")


def square(top: int, left: int, side: int, size: int = 60) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_masks_are_scored_as_worked_out_by_hand() -> None:
    truth = square(10, 10, 20)
    assert score_mask(truth, truth) == MaskScore(1.0, 1.0)
    half = truth.copy()
    half[20:] = False
    assert score_mask(half, truth).iou == pytest.approx(0.5)
    assert score_mask(square(40, 40, 10), truth) == MaskScore(0.0, 0.0)
    nothing = np.zeros_like(truth)
    assert score_mask(nothing, nothing) == MaskScore(1.0, 1.0)
    assert score_mask(nothing, truth) == MaskScore(0.0, 0.0)


def test_borders_meet_within_the_tolerance_and_not_beyond() -> None:
    truth, moved = square(10, 10, 20), square(10, 13, 20)
    diagonal = math.hypot(60, 60)
    assert boundary_f(moved, truth, 3 / diagonal) == 1.0
    near = boundary_f(moved, truth, 1 / diagonal)
    assert 0.4 < near < 0.8  # the sides across the move are off, those along it are not
    assert boundary_f(truth, moved, 1 / diagonal) == pytest.approx(near)


def test_the_pictures_edge_is_no_border() -> None:
    assert not border(np.ones((5, 5), bool)).any()
    half = np.zeros((5, 6), bool)
    half[:, :3] = True
    np.testing.assert_array_equal(np.flatnonzero(border(half)[0]), [2])


def test_a_blurred_maps_cutout_scores_better_than_the_map() -> None:
    mask = ellipses(120, 160, (0.5, 0.5, 0.25, 0.3))
    row = score_cutouts(photo_of(mask), map_of(mask, 8, (3, 3)), mask)
    assert row.found
    assert row.seconds > 0
    for threshold in ("mean", "otsu"):
        cut, plain = row.scores[f"cut-out {threshold}"], row.scores[f"map {threshold}"]
        assert cut.iou > plain.iou
        assert cut.boundary_f > plain.boundary_f


def test_thumbnails_are_scored_by_what_they_show_and_keep() -> None:
    mask = ellipses(120, 160, (0.5, 0.5, 0.1, 0.1))
    rows = score_thumbnails([photo_of(mask)] * 2, [map_of(mask, 2), np.zeros(mask.shape, np.float32)], [mask, mask])
    assert {(row.shape.across, row.shape.down) for row in rows} == {(1, 1), (4, 3), (3, 4), (16, 9)}
    assert len(rows) == 2 * 4 * 2
    assert all(row.shown == 1 and row.ratio_error <= 0.5 and not row.padded for row in rows)
    middle = [row for row in rows if (row.shape.across, row.shape.down) == (1, 1)][1]
    assert middle.kept == pytest.approx(0.75)


def test_the_bench_writes_every_group_and_the_sums(
    tiny_bundle: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, name in enumerate(["set/kept", "set/other"]):
        for number in range(2):
            mask = ellipses(80, 100, (0.5, 0.5, 0.15 + 0.05 * index, 0.2))
            pictures = {
                "images": photo_of(mask),
                "gts": to_bytes(mask.astype(np.float32)),
                "maps": to_bytes(map_of(mask, 4)),
            }
            for folder, picture in pictures.items():
                path = tmp_path / folder / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
    bundle = ["--bundle", str(tiny_bundle("onnxruntime", "fp32"))]
    data = [*bundle, "--data", str(tmp_path), "--held-out", "set/kept", "--json", str(tmp_path / "f.json")]
    assert run(cutouts.main, [*data, "--maps", str(tmp_path / "maps")]) == 0
    document = json.loads((tmp_path / "f.json").read_text())
    assert document["held_out"] == ["set/kept"]
    assert set(document["cutouts"]["groups"]) == {"set/kept", "set/other"}
    assert document["cutouts"]["held-out"]["scores"] == document["cutouts"]["groups"]["set/kept"]["scores"]
    assert document["cutouts"]["held-out"]["scores"]["cut-out mean"]["iou"] > 0.97
    for row in document["thumbnails"]["groups"]["set/other"]:
        assert row["shown_worst"] == 1
        assert row["ratio_error_pixels"] <= 0.5
    table = capsys.readouterr().out
    assert "| held-out (2) | " in table
    assert "| 1:1, pad | 1.000 |" in table

    assert run(cutouts.main, [*data, "--groups", "set/kept", "--sheet", str(tmp_path / "s.png")]) == 0  # by the bundle
    assert set(json.loads((tmp_path / "f.json").read_text())["cutouts"]["groups"]) == {"set/kept"}
    with Image.open(tmp_path / "s.png") as sheet:
        assert min(sheet.size) > 900
    assert run(cutouts.main, [*data, "--groups", "set/kept", "set/absent"]) == 2
    assert "--groups set/absent: not in" in capsys.readouterr().err


def test_nothing_to_measure_is_an_error(
    tiny_bundle: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = ["--bundle", str(tiny_bundle("onnxruntime", "fp32"))]
    for words in ([], ["--sheet", str(tmp_path / "s.png"), "--json", str(tmp_path / "f.json")]):
        assert run(cutouts.main, [*bundle, *words]) == 2
        assert "--data" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_large_photo_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    assert run(large_cutout.main, ["--photos", "1", "--json", str(tmp_path / "l.json")]) == 0
    document = json.loads((tmp_path / "l.json").read_text())
    (row,) = document["photos"]
    assert (document["width"], document["height"]) == (4000, 3000)
    assert row["all_as_png_s"] > row["cutout_s"] > 0
    assert row["peak_rss_mb"] >= row["cutout_peak_rss_mb"] > row["inputs_rss_mb"] > 36 + 48  # photo and map themselves
