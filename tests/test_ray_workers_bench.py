"""The bench of Ray workers: its tree, and its report, with commands run in this process and without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from gconet.bench import ray_workers
from gconet.bench.photo_groups import find_photos
from gconet.runtime import cli
from gconet.runtime.errors import TargetError


def test_sizes_are_from_2_to_12_each_as_often_and_mixed() -> None:
    sizes = ray_workers.group_sizes(55)
    assert sorted(sizes) == sorted([*range(2, 13)] * 5)
    assert sizes[:11] != sorted(sizes[:11])


@pytest.mark.parametrize("differ", [False, True])
def test_the_report_tells_seconds_ratio_and_whether_files_are_identical(
    differ: bool,
    tiny_bundle: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def detect(tree: Path, bundle: Path, out: Path, options: Sequence[str]) -> float:
        assert sorted(path.name for path in tree.iterdir()) == ["000", "001"]
        assert cli.main(["detect", str(tree), "--bundle", str(bundle), "--out", str(out)]) == 0
        if differ and "2" in options:
            Image.new("L", (1, 1)).save(out / "000/00.png")
        return 4.0 if "1" in options and "2" not in options else 2.5

    monkeypatch.setattr(ray_workers, "time_command", detect)
    report = tmp_path / "report.json"
    bundle = str(tiny_bundle("onnxruntime", "fp32"))
    code = ray_workers.main(["--bundle", bundle, "--groups", "2", "--rounds", "1", "--json", str(report)])
    assert code == int(differ)
    assert ("DIFFER" in capsys.readouterr().out) == differ
    document = json.loads(report.read_text("utf-8"))
    assert document["ratio"] == 1.6
    assert document["tree"] == {"groups": 2, "photos": 11, "sizes": [2, 9]}
    assert [way["median_seconds"] for way in document["ways"]] == [4.0, 2.5, 2.5, 2.5]
    assert [way["files_identical_to_the_first"] for way in document["ways"]] == [True, *[not differ] * 3]
    assert str(tmp_path) not in report.read_text("utf-8")


def test_a_command_that_fails_is_told_in_one_line(tmp_path: Path) -> None:
    ray_workers.make_tree(tmp_path / "tree", find_photos(None), 1)
    with pytest.raises(TargetError, match=r"gconet detect --threads 1 failed: gconet: no bundle at .*missing"):
        ray_workers.time_command(tmp_path / "tree", tmp_path / "missing", tmp_path / "out", ["--threads", "1"])
