"""`gconet build-capi`: what it writes, and what it says where nothing can be built; and the bench of starting."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from capi_build import flags_of, run

import gconet.runtime as gr
from gconet.bench import capi_startup
from gconet.runtime import command_line
from gconet.runtime.capi import build
from gconet.runtime.cli import main

BundleMaker = Callable[[str, str], Path]


def test_the_command_builds_and_does_not_overwrite_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], capi: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    assert main(["build-capi", "--out", str(out)]) == 0
    assert str(out / "include" / "gconet.h") in capsys.readouterr().out
    found = {path.relative_to(out) for path in out.rglob("*") if not path.is_dir()}
    assert found == {path.relative_to(out) for path in build.files_of(out).values()}
    assert (out / "lib" / "libgconet.so").readlink() == Path("libgconet.so.1")
    assert capi.keys() == build.files_of(out).keys()
    with pytest.raises(gr.UsageError, match=r"gconet\.h exists already: .*--overwrite"):
        main(["build-capi", "--out", str(out)])
    assert main(["build-capi", "--out", str(out), "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"CC": "no-such-compiler"}, r"no C compiler no-such-compiler: .*CC"),
        ({"CFLAGS": "-include no/such/header.h"}, r"cannot compile libgconet\.so, it says: .*no/such/header\.h"),
    ],
    ids=["none", "fails"],
)
def test_a_compiler_that_is_missing_or_fails_is_one_line_and_leaves_nothing(
    environment: Mapping[str, str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capi: dict[str, Path],  # noqa: ARG001 (skips where nothing can be built)
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(gr.TargetError, match=complaint) as caught:
        build.build(tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_python_without_a_shared_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.sysconfig, "get_config_var", {"LDLIBRARY": "libpython3.11.a"}.get)
    with pytest.raises(gr.TargetError, match=r"no shared library to embed \(libpython3\.11\.a\): .*python3-dev"):
        build.python_library()


def test_other_systems_than_linux_are_told_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build.sys, "platform", "darwin")
    monkeypatch.setattr(build.sysconfig, "get_config_var", {"LDLIBRARY": "Python.framework/Versions/3.11/Python"}.get)
    with pytest.raises(gr.TargetError, match=r"made for Linux, not darwin: use the Python interface"):
        build.build(tmp_path / "out")


def test_a_link_that_cannot_be_made_leaves_nothing(capi: dict[str, Path], tmp_path: Path) -> None:  # noqa: ARG001 (skips)
    link = build.files_of(tmp_path)["link"]
    link.mkdir(parents=True)
    with pytest.raises(gr.UsageError, match=r"cannot write .*libgconet\.so: "):
        build.build(tmp_path, overwrite=True)
    assert not list(link.parent.glob(".*"))


def test_without_cffi_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cffi", None)
    monkeypatch.setattr(
        build, "python_library", lambda: build.PythonLibrary(Path("/lib/libpython3.so"), "libpython3.so")
    )
    assert command_line.run(main, ["build-capi", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "gconet: cffi cannot be imported: pip install 'gconet-deploy[capi]'\n"


def test_the_flags_are_pkg_configs(capi: dict[str, Path]) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("needs pkg-config")
    assert f"-L{capi['library'].parent}" in [os.path.normpath(flag) if flag[:2] == "-L" else flag
                                             for flag in flags_of(capi)]  # fmt: skip
    told = run("pkg-config", "--modversion", "gconet", PKG_CONFIG_PATH=str(capi["pkg-config"].parent))
    assert told.stdout.strip() == build.version()


def test_the_bench_of_starting_runs_both_programs_step_by_step(
    tiny_bundle: BundleMaker,
    tmp_path: Path,
    capi: dict[str, Path],  # noqa: ARG001 (skips where nothing can be built)
) -> None:
    bundle = str(tiny_bundle("onnxruntime", "fp32"))
    arguments = ["--bundle", bundle, "--group", "1", "--rounds", "1", "--json", str(tmp_path / "startup.json")]
    assert capi_startup.main(arguments) == 0
    told = json.loads((tmp_path / "startup.json").read_text())
    assert told["medians"].keys() == {"C", "Python"}
    for figures in told["medians"].values():
        for unit in ("s", "cpu_s"):
            steps = [figures[f"{step}_{unit}"] for step in capi_startup.STEPS]
            assert steps == sorted(steps)
            assert steps[0] > 0
        assert figures["peak_rss_mb"] > 10
    assert "/" not in told["command"].replace("bench/capi_startup.py", "")  # no folder of this machine


def test_peak_memory_is_told_in_a_million_bytes() -> None:
    start = capi_startup.measure([sys.executable, "-c", "print('1 ' * 8, 10**6)"])  # KiB
    assert start.peak_rss_mb == pytest.approx(1024)
