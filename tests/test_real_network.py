"""The full-size network on photos, engine by engine, against the eager network."""

from __future__ import annotations

from pathlib import Path

import pytest

from gconet.export import build_engine
from gconet.runtime import open_bundle
from gconet.runtime.command_line import run


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_fp32_engines_equal_the_eager_network(target: str, tmp_path: Path) -> None:
    out = tmp_path / "full.gconet"
    assert (
        run(build_engine.main, ["--target", target, "--precision", "fp32", "--max-group", "16", "--out", str(out)]) == 0
    )
    rows = open_bundle(out).manifest.parity["rows"]
    assert [row["group"] for row in rows] == [1, 2, 5, 16]
    assert max(row["max_abs"] for row in rows) <= 1e-4
