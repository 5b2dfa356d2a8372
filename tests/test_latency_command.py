"""`gconet bench`: reports, exit codes, parity in the same run, what is left out, what it refuses, and what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_MAX_GROUP
from html_page import Page
from parity_bundles import BundleWithFault, change_weight

from gconet.bench import latency, latency_parity
from gconet.runtime.command_line import run
from gconet.train.checkpoint import Checkpoint

FEW = ("--rounds", 2, "--warm-up", 1, "--threads", 1)
BARE = (*FEW, "--no-eager", "--no-roofline")


@pytest.fixture(scope="module")
def make_bundle(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> BundleWithFault:
    return BundleWithFault(tiny_checkpoint, tmp_path_factory.mktemp("latency"))


@pytest.fixture(scope="module")
def sound(make_bundle: BundleWithFault) -> Path:
    return make_bundle("sound", "openvino", "fp32")


@pytest.fixture(scope="module")
def faulty(make_bundle: BundleWithFault) -> Path:
    return make_bundle("faulty", "onnxruntime", "fp32", change_weight("decoder.levels.2.fuse.0", 3.0))


def bench(*arguments: object) -> int:
    try:
        return run(latency.main, [str(argument) for argument in arguments])
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1


@pytest.fixture(scope="module")
def reports(make_bundle: BundleWithFault, sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All reports of one run with eager PyTorch and a peer, two group sizes, and the roofline."""
    out = tmp_path_factory.mktemp("reports")
    files = ("--json", out / "l.json", "--markdown", out / "l.md", "--html", out / "l.html", "--samples", out / "raw")
    what = ("--bundle", sound, "--checkpoint", make_bundle.checkpoint_file, "--group", 2, "--group", 1)
    assert bench(*what, *FEW, "--peers", "onnxruntime", *files) == 0
    return out


def document_of(folder: Path) -> Any:
    return json.loads((folder / "l.json").read_text("utf-8"))


def test_bundle_and_peers_are_timed_and_compared_at_every_group_size(reports: Path) -> None:
    document = document_of(reports)
    assert [(row["engine"], row["group"]) for row in document["rows"]] == [
        (engine, group) for group in (1, 2) for engine in ("sound", "eager PyTorch", "plain ONNX Runtime")
    ]
    for row in document["rows"]:
        assert row["parity"]["status"] == "passed"
        assert row["parity"]["mean_abs"] <= row["parity"]["limits"]["mean_abs"]
        assert len(row["samples_ms"]) == 2
        assert row["peak_rss_mb"] > 20
        assert row["device_memory_mb"] is None
        assert row["roofline"]["share_of_peak"] > 0
        assert (row["phases"] is not None) == (row["engine"] == "sound")
        assert row["is_peer"] == (row["engine"] != "sound")
    assert document["rows"][1]["speedup_over_eager"] == 1
    assert document["rows"][0]["gflop"] < document["rows"][1]["gflop"]  # merged projections
    assert document["passed"] is True
    assert document["roofline"]["rates"]["fp32"]["gflops"] > 0
    assert document["left_out"] == {}


def test_every_report_tells_the_same_run(reports: Path) -> None:
    document = document_of(reports)
    page = Page((reports / "l.html").read_text("utf-8"))
    markdown = (reports / "l.md").read_text("utf-8")
    for row in document["rows"]:
        assert f"{row['p50_ms']:.1f}" in page.text
        assert f"| {row['p50_ms']:.1f} |" in markdown
    assert page.links == []
    assert [bundle["manifest_sha256"] for bundle in document["bundles"].values()] == [
        bundle["manifest_sha256"] for bundle in json.loads((reports / "raw/meta.json").read_text("utf-8"))["bundles"]
    ]
    samples = [json.loads(line) for line in (reports / "raw/samples.jsonl").read_text("utf-8").splitlines()]
    assert [s["ms"] for s in samples if not s["warm_up"]] == [
        ms for row in document["rows"] for ms in row["samples_ms"]
    ]
    meta = json.loads((reports / "raw/meta.json").read_text("utf-8"))
    assert meta["clocks"].keys() == {"before", "after"}
    assert meta["threads"] == 1
    for name in ("l.json", "l.md", "l.html", "raw/meta.json"):
        assert str(reports) not in (reports / name).read_text("utf-8")


def test_what_was_timed_and_is_wrong_fails_the_run(
    make_bundle: BundleWithFault, sound: Path, faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = ("--bundle", sound, "--bundle", faulty, "--checkpoint", make_bundle.checkpoint_file)
    assert bench(*what, *BARE, "--json", tmp_path / "l.json") == 1
    assert "outside the tolerance: faulty, onnxruntime fp32, for a group of 2" in capsys.readouterr().out
    rows = document_of(tmp_path)["rows"]
    assert [row["parity"]["status"] for row in rows] == ["passed", "failed"]
    assert bench(*what, *BARE, "--no-parity") == 0
    assert "parity not checked: --no-parity was given" in capsys.readouterr().out


def test_unknown_weights_are_timed_and_the_report_says_parity_was_not_checked(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--bundle", sound, *BARE, "--json", tmp_path / "l.json") == 0
    assert "parity not checked: the bundle was built from other weights" in capsys.readouterr().out
    document = document_of(tmp_path)
    assert "--checkpoint" in document["parity"]["not_checked"]
    assert document["rows"][0]["parity"]["status"] == "not checked"


def test_without_torch_bundles_are_timed_and_the_report_says_what_is_missing(
    sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency_parity.importlib.util, "find_spec", lambda _: None)
    assert bench("--bundle", sound, *BARE) == 0
    assert "parity not checked: it needs torch: pip install" in capsys.readouterr().out
    assert bench("--bundle", sound, *FEW) == 2
    assert "--no-eager" in capsys.readouterr().err


def test_a_peer_that_cannot_run_is_in_the_report_with_its_reason(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gconet.bench.peers.describe_environment", lambda: {"cpu_flags": []})
    files = ("--json", tmp_path / "l.json", "--html", tmp_path / "l.html")
    assert bench("--bundle", sound, *BARE, "--peers", "pytorch-bf16", *files) == 0
    reason = "this CPU has no bf16 instructions"
    assert f"left out: PyTorch bf16, channels last: {reason}" in capsys.readouterr().out
    assert reason in document_of(tmp_path)["left_out"]["PyTorch bf16, channels last"]
    assert reason in Page((tmp_path / "l.html").read_text("utf-8")).text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--peers", "tensorflow"), "no peer is called 'tensorflow'"),
        (("--peers", "none,onnxruntime"), "stands alone"),
        (("--group", TINY_MAX_GROUP + 1), "lower --group"),
        (("--group", 0), "at least 1"),
        (("--rounds", "many"), "at least 1"),
        (("--warm-up", 0), "at least 1"),
        (("--budget-ms", -1), "above 0"),
        (("--images", "absent"), "no photo or folder at absent"),
        (("--checkpoint", "absent.pth"), "no checkpoint at absent.pth"),
        (("--html", "."), "it is a folder, name a file"),
        (("--json", "/dev/null/l.json"), "cannot write /dev/null/l.json"),
        (("--samples", "/dev/null/raw"), "cannot write /dev/null/raw"),
        (("--quick",), "unrecognized arguments: --quick"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    sound: Path, arguments: tuple[object, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--bundle", sound, *BARE, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_bundles_that_reports_could_not_tell_apart_are_refused(
    make_bundle: BundleWithFault, sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--bundle", sound, "--bundle", sound, *BARE) == 2
    assert bench("--bundle", make_bundle("torch.compile", "onnxruntime", "fp32"), *BARE) == 2
    assert "rename its folder" in capsys.readouterr().err


def test_another_checkpoints_bundle_is_timed_beside_but_not_compared(
    make_bundle: BundleWithFault, sound: Path, tiny_bundle: Any, tmp_path: Path
) -> None:
    other = tiny_bundle("onnxruntime", "fp32")  # names no checkpoint
    what = ("--bundle", sound, "--bundle", other, "--checkpoint", make_bundle.checkpoint_file)
    assert bench(*what, *BARE, "--json", tmp_path / "l.json") == 0
    statuses = [row["parity"]["status"] for row in document_of(tmp_path)["rows"]]
    assert statuses == ["passed", "not checked"]


def test_bundles_alone_are_timed_without_loading_torch_or_onnx(sound: Path) -> None:
    code = (
        "import sys; from gconet.bench import latency; from gconet.runtime.command_line import run; "
        f"code = run(latency.main, {['--bundle', str(sound), *map(str, BARE), '--no-parity']}); "
        "print(code, sorted({'torch', 'onnx', 'onnxscript'} & sys.modules.keys()))"
    )
    source = Path(latency.__file__).parents[1].parent
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                            env={"PYTHONPATH": str(source)})  # fmt: skip
    assert result.stdout.splitlines()[-1] == "0 []"
