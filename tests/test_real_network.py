"""The full-size network on photos, engine by engine, against the eager network; and on a real group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from gconet.engines.registry import get_target
from gconet.export import build_engine, verified_build
from gconet.runtime import cli, open_bundle
from gconet.runtime.command_line import run
from gconet.runtime.photos import read_photo

pytestmark = pytest.mark.slow
FullBundle = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def full_bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullBundle]:
    """Bundles of the weights that ship by (target, precision), verified up to 5 photos; built once."""
    built: dict[tuple[str, str], Path] = {}

    def make(target: str, precision: str) -> Path:
        if (target, precision) not in built:
            out = tmp_path_factory.mktemp("full") / f"{target}-{precision}.gconet"
            # Winograd's form wherever it can be had: it is the farthest from the network.
            forms = ["--convolutions", "winograd"] if precision == "fp32" else []
            what = ["--target", target, "--precision", precision, "--max-group", "5"]
            assert run(build_engine.main, [*what, *forms, "--out", str(out)]) == 0
            built[target, precision] = out
        return built[target, precision]

    with pytest.MonkeyPatch.context() as patch:  # latency is not what these tests are about, and half their time
        patch.setattr(verified_build, "_measure_latency", lambda manifest, *_: manifest)
        yield make


@pytest.mark.parametrize(
    ("target", "precision", "statistic", "limit"),
    [
        ("onnxruntime", "fp32", "max_abs", 1e-4),
        ("openvino", "fp32", "max_abs", 1e-4),
        ("openvino", "bf16", "mean_abs", 5e-3),
    ],
)
def test_engines_equal_the_eager_network(
    target: str, precision: str, statistic: str, limit: float, full_bundle: FullBundle
) -> None:
    if precision not in ("fp32", get_target(target).preferred_precision()):
        pytest.skip(f"this CPU has no {precision} instructions")
    rows = open_bundle(full_bundle(target, precision)).manifest.parity["rows"]
    assert [row["group"] for row in rows] == [1, 2, 5]
    assert max(row[statistic] for row in rows) <= limit


def test_a_real_group_larger_than_verified_gets_a_map_for_every_photo(
    full_bundle: FullBundle, shared: Path, tmp_path: Path
) -> None:
    bundle = full_bundle("openvino", get_target("openvino").preferred_precision())
    photos = sorted((shared / "data" / "images" / "VOC10CoSeg" / "Aero").glob("*.jpg"))[:17]  # done in blocks, too
    maps = tmp_path / "maps"
    assert run(cli.main, ["detect", *map(str, photos), "--bundle", str(bundle), "--out", str(maps)]) == 0
    assert {path.name for path in maps.iterdir()} == {f"{photo.stem}.png" for photo in photos}
    for photo in photos:
        with Image.open(maps / f"{photo.stem}.png") as saliency:
            assert (saliency.mode, saliency.size[::-1]) == ("L", read_photo(photo).shape[:2])
