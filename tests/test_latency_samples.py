"""Samples as JSON Lines with what they are samples of, and clocks where a system shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from latency_examples import EAGER_ROW, ROW, make_run

from gconet.bench import clocks
from gconet.bench.clocks import read_clocks
from gconet.bench.latency_samples import write_samples
from gconet.runtime.bundle import describe_file, open_bundle
from gconet.runtime.errors import UsageError


def test_every_sample_is_a_line_and_meta_names_every_hash(
    tiny_bundle: Callable[[str, str], Path], tmp_path: Path
) -> None:
    bundle = open_bundle(tiny_bundle("onnxruntime", "fp32"))
    run = make_run(ROW, EAGER_ROW, left_out={"torch.compile": "no compiler"}, clocks={"before": {"cpu_mhz": [1.0]}})
    write_samples(tmp_path / "deep" / "samples", run, [bundle], "2026-01-01T00:00:00+00:00")
    lines = [json.loads(line) for line in (tmp_path / "deep/samples/samples.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 2 * (2 + 3)
    assert lines[0] == {
        "engine": "ours & <best>", "target": "openvino", "precision": "bf16", "group": 2, "warm_up": True, "round": 0,
        "ms": 90.0,
    }  # fmt: skip
    assert [line["ms"] for line in lines if not line["warm_up"] and line["engine"] == ROW.engine] == [45, 50, 60]

    meta = json.loads((tmp_path / "deep/samples/meta.json").read_text("utf-8"))
    (described,) = meta["bundles"]
    assert described["files"] == {
        name: {"sha256": entry.sha256, "bytes": entry.bytes} for name, entry in bundle.manifest.files.items()
    }
    assert described["manifest_sha256"] == describe_file(bundle.folder / "manifest.json").sha256
    assert described["weights"] == {"provenance": "tests"}
    assert described["model"] == "GCoNet"
    assert (meta["threads"], meta["rounds"], meta["environment"]["cpu"]) == (2, 3, "Imaginary <CPU>")
    assert meta["clocks"] == {"before": {"cpu_mhz": [1.0]}}
    assert meta["left_out"] == {"torch.compile": "no compiler"}
    assert str(tmp_path) not in json.dumps(meta)
    assert sorted(path.name for path in (tmp_path / "deep/samples").iterdir()) == ["meta.json", "samples.jsonl"]


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        write_samples(tmp_path / "file", make_run(ROW), [], "2026-01-01T00:00:00+00:00")


def test_clocks_are_read_where_the_system_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks.shutil, "which", lambda _: None)
    files = {
        "proc/cpuinfo": "model name: x\ncpu MHz\t\t: 2596.132\n\ncpu MHz\t\t: 1200.5\n",
        "proc/loadavg": "1.50 1.2 1.0 1/2 3\n",
        "proc/stat": "cpu  1 2 3 4 5 6 7 88 9 0\ncpu0 1 2\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_clocks(tmp_path) == {
        "cpu_mhz": [2596.132, 1200.5],
        "cpu_governors": ["powersave"],
        "cpu_throttle_events": 7,
        "load_average": 1.5,
        "stolen_ticks": 88,
        "gpus": "no nvidia-smi",
    }


def test_clocks_that_cannot_be_read_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks.shutil, "which", lambda _: None)
    found = read_clocks(tmp_path)
    assert set(found.values()) == {"not readable", "no nvidia-smi"}


def test_clocks_of_gpus_come_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "Imaginary, 1980 MHz, 2619 MHz, 41, 0x0000000000000004"\n')
    program.chmod(0o755)
    monkeypatch.setattr(clocks.shutil, "which", lambda _: str(program))
    assert read_clocks(tmp_path)["gpus"] == [
        {
            "name": "Imaginary",
            "clocks.sm": "1980 MHz",
            "clocks.mem": "2619 MHz",
            "temperature.gpu": "41",
            "clocks_event_reasons.active": "0x0000000000000004",
        }
    ]
