"""Targets: what they build, what they refuse, and that `auto` chooses something that runs."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import require_target

from gconet.engines import installed, registry
from gconet.engines.doctor import examine_targets, main
from gconet.engines.registry import TARGETS, choose_target, get_target
from gconet.engines.target import EngineSpec, check_spec
from gconet.engines.tensorrt_gpu import Gpu
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.session import SESSIONS, why_not_runnable


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_describes_itself(name: str) -> None:
    target = get_target(name)
    if name.startswith("tensorrt"):
        require_target(name)
    assert target.name == name
    assert target.preferred_precision() in target.precisions
    assert target.version()[0].isdigit()
    assert target.runs_here() is not None or why_not_runnable(name) is None
    assert target.runs_here() is None or name.startswith("tensorrt")


def test_auto_is_a_target_with_a_session() -> None:
    target, why = choose_target()
    assert target.name in SESSIONS
    assert target.name in why


def test_auto_passes_over_what_is_missing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_openvino(module: str) -> object:
        if module == "openvino":
            raise ImportError("No module named 'openvino'")
        return original(module)

    original = installed.importlib.import_module
    monkeypatch.setattr(installed.importlib, "import_module", no_openvino)
    target, why = choose_target()
    assert target.name == "onnxruntime"
    assert "pip install openvino" in why

    with pytest.raises(TargetError, match=r"in bf16 .*--target: .*onnxruntime not: it builds fp32, fp16, int8"):
        choose_target("bf16")
    monkeypatch.setattr(registry, "AUTO_ORDER", ("openvino",))
    with pytest.raises(TargetError, match="pip install openvino"):
        choose_target()


def test_auto_tells_how_to_use_a_gpu_that_it_leaves_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "AUTO_ORDER", ("onnxruntime",))
    monkeypatch.setattr(registry, "present_gpus", lambda: [Gpu("Imaginary GPU", "8.9")])
    monkeypatch.setattr(registry, "installed_version", lambda _: None)
    assert "Imaginary GPU goes unused: to use it, pip uninstall -y onnxruntime, pip install 'onnx" in choose_target()[1]
    monkeypatch.setattr(registry, "installed_version", lambda _: "1.32.0")
    assert "Imaginary GPU goes unused: to use it, build with --target onnxruntime" in choose_target()[1]
    for gpus in ([], [Gpu("NVIDIA GeForce GTX 1080 Ti", "6.1")]):
        monkeypatch.setattr(registry, "present_gpus", lambda gpus=gpus: gpus)
        assert "unused" not in choose_target()[1]


def test_unknown_targets_precisions_and_groups_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown target 'abacus': choose auto, onnxruntime"):
        get_target("abacus")
    with pytest.raises(UsageError, match="builds fp32, fp16, int8, not bf16"):
        check_spec(get_target("onnxruntime"), EngineSpec("bf16", 64))
    with pytest.raises(UsageError, match="at least 1"):
        EngineSpec("fp32", 0)
    with pytest.raises(UsageError, match="leave it out"):
        check_spec(get_target("onnxruntime"), EngineSpec("fp32", 64, ("8.9",)))
    with pytest.raises(UsageError, match=r"capability '6\.1'.*builds for 7\.5"):
        check_spec(get_target("tensorrt-rtx"), EngineSpec("fp16", 64, ("8.9", "6.1")))


def test_rival_onnxruntime_wheels_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed.onnxruntime_conflict() is None
    monkeypatch.setattr(installed, "installed_version", lambda name: "1.0" if name.startswith("onnxruntime") else None)
    conflict = installed.onnxruntime_conflict()
    assert conflict is not None
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in conflict


def test_doctor_reports_every_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert [report.target for report in examine_targets()] == list(TARGETS)
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in TARGETS)
    assert "auto: " in out


def test_doctor_explains_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gconet.engines.doctor.installed_version", lambda name: None if name == "torch" else "1.0")
    for report in examine_targets():
        assert report.build_problem == "torch missing: pip install 'gconet-deploy[build]'"


def test_doctor_works_where_nothing_is_installed_to_build_with() -> None:
    """In a process that cannot import them: the doctor is there to say so."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('onnx', 'torch', 'onnxruntime')));"
        "from gconet.engines import doctor;"
        "doctor.installed_version = lambda name: None if name in ('onnx', 'torch') else '1.0';"
        "sys.exit(doctor.main([]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "build  torch, onnx missing: pip install 'gconet-deploy[build]'" in result.stdout
    assert "auto: openvino" in result.stdout


def test_bf16_differs_from_fp32_so_it_is_really_used(tiny_bundle: object, rng: np.random.Generator) -> None:
    from gconet.runtime import load

    if get_target("openvino").preferred_precision() != "bf16":
        pytest.skip("this CPU has no bf16 instructions")
    images = rng.standard_normal((2, 3, 64, 64), np.float32)
    single, half = (load(tiny_bundle("openvino", precision)) for precision in ("fp32", "bf16"))  # type: ignore[operator]
    difference = single.session.infer({"images": images})["maps"] - half.session.infer({"images": images})["maps"]
    assert 1e-4 < np.abs(difference).mean() < 1e-2
