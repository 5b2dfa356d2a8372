"""The full-size network on photos, engine by engine, against the eager network; and on a real group."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from gconet.engines.registry import get_target
from gconet.export import build_engine
from gconet.runtime import cli, open_bundle
from gconet.runtime.command_line import run
from gconet.runtime.photos import read_photo

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("target", "precision", "statistic", "limit"),
    [
        ("onnxruntime", "fp32", "max_abs", 1e-4),
        ("openvino", "fp32", "max_abs", 1e-4),
        ("openvino", "bf16", "mean_abs", 5e-3),
    ],
)
def test_engines_equal_the_eager_network(
    target: str, precision: str, statistic: str, limit: float, tmp_path: Path
) -> None:
    if precision not in ("fp32", get_target(target).preferred_precision()):
        pytest.skip(f"this CPU has no {precision} instructions")
    out = tmp_path / "full.gconet"
    # Winograd's form wherever it can be had: it is the farthest from the network.
    forms = ["--convolutions", "winograd"] if precision == "fp32" else []
    arguments = ["--target", target, "--precision", precision, "--max-group", "5", "--out", str(out), *forms]
    assert run(build_engine.main, arguments) == 0
    rows = open_bundle(out).manifest.parity["rows"]
    assert [row["group"] for row in rows] == [1, 2, 5]
    assert max(row[statistic] for row in rows) <= limit


def test_a_real_group_larger_than_verified_gets_a_map_for_every_photo(shared: Path, tmp_path: Path) -> None:
    photos = shared / "data" / "images" / "VOC10CoSeg" / "Aero"
    bundle = tmp_path / "full.gconet"
    assert run(build_engine.main, ["--max-group", "2", "--out", str(bundle)]) == 0
    assert run(cli.main, ["detect", str(photos), "--bundle", str(bundle), "--out", str(tmp_path / "maps")]) == 0
    names = {path.stem for path in photos.glob("*.jpg")}
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {f"{name}.png" for name in names}
    for name in names:
        with Image.open(tmp_path / "maps" / f"{name}.png") as saliency:
            assert (saliency.mode, saliency.size[::-1]) == ("L", read_photo(photos / f"{name}.jpg").shape[:2])
