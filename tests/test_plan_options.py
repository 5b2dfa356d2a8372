"""What may be asked of a plan, and what NVIDIA's GPUs can run; nothing is built."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gconet.engines import tensorrt_builder
from gconet.engines.doctor import main as doctor
from gconet.engines.gpu_generations import GENERATIONS, GPU_PRECISIONS, RULES, table, verdict, why_not
from gconet.engines.plan_options import FLAGS, PlanOptions, Profile, add_plan_arguments, plan_options, profiles_for
from gconet.engines.registry import get_target
from gconet.engines.target import EngineSpec, check_spec
from gconet.engines.tensorrt_builder import not_for_this_gpu
from gconet.engines.tensorrt_gpu import Gpu, present_gpus
from gconet.engines.tensorrt_products import TENSORRT, TENSORRT_RTX, load
from gconet.export import build_engine
from gconet.runtime.command_line import run
from gconet.runtime.errors import TargetError, UsageError


@pytest.mark.parametrize("largest", [1, 2, 5, 8, 9, 19, 64, 256])
def test_the_usual_profiles_take_every_group_once(largest: int) -> None:
    profiles = profiles_for(PlanOptions(), largest)
    sizes = [size for low, _, high in profiles for size in range(low, high + 1)]
    assert sizes == list(range(1, largest + 1))
    assert all(low <= usual <= high for low, usual, high in profiles)


def test_profiles_are_tuned_at_the_usual_sizes() -> None:
    assert profiles_for(PlanOptions(), 256) == ((1, 1, 1), (2, 5, 8), (9, 20, 256))
    assert profiles_for(PlanOptions(), 4) == ((1, 1, 1), (2, 4, 4))


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ([(2, 2, 4)], r"2:2:4.*must start at 1"),
        ([(1, 2, 2), (4, 4, 8)], r"4:4:8.*must start at 3"),
        ([(1, 2, 4), (4, 5, 8)], r"4:5:8.*must start at 5"),
        ([(1, 2, 4)], r"ends at 4, the largest group is 8: add --max-group 4"),
    ],
)
def test_profiles_that_leave_out_or_repeat_a_group_are_refused(
    profiles: list[tuple[int, int, int]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        profiles_for(PlanOptions(tuple(Profile(*sizes) for sizes in profiles)), 8)


def test_options_that_a_target_cannot_have_are_refused() -> None:
    def check(target: str, precision: str = "fp16", capabilities: tuple[str, ...] = (), **options: Any) -> None:
        check_spec(get_target(target), EngineSpec(precision, 64, capabilities, PlanOptions(**options)))

    check("tensorrt", version_compatible=True, hardware="ampere+", timing_cache=Path("cache"), strip_weights=True)
    check("tensorrt-rtx", capabilities=("7.5", "8.9"), strip_weights=True, workspace_mib=512, optimization_level=5)
    with pytest.raises(UsageError, match=r"--strip-weights is for TensorRT plans, not for target openvino: leave it"):
        check("openvino", "fp32", strip_weights=True)
    for option, value in (("timing_cache", Path("cache")), ("hardware", "ampere+"), ("version_compatible", True),
                          ("affinity_plugin", True)):  # fmt: skip
        with pytest.raises(UsageError, match=rf"{FLAGS[option]} is not for target tensorrt-rtx, .*: leave it out"):
            check("tensorrt-rtx", **{option: value})
    with pytest.raises(UsageError, match=r"builds for the GPU of this machine; .*--target tensorrt-rtx"):
        check("tensorrt", capabilities=("8.9",))
    with pytest.raises(UsageError, match="each only once"):
        check("tensorrt-rtx", capabilities=("8.9", "8.9"))
    with pytest.raises(UsageError, match=r"builds fp16, fp32, int8, not bf16: change --precision"):
        check("tensorrt", "bf16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--target tensorrt-rtx --timing-cache t", "--timing-cache is not for target tensorrt-rtx"),
        ("--target tensorrt-rtx --hardware-compatible ampere+", "--compute-capability, several in one plan"),
        ("--target tensorrt-rtx --compute-capability 6.1", "TensorRT for RTX starts at Turing"),
        ("--target tensorrt-rtx --compute-capability 9.0", "--target tensorrt --precision fp16"),
        ("--target tensorrt --compute-capability 8.9", "--target tensorrt-rtx, which builds for GPUs"),
        ("--target onnxruntime --workspace 64", "--workspace is for TensorRT plans"),
        ("--target tensorrt --precision bf16", "change --precision"),
        ("--target tensorrt-rtx --profile 8", "not MIN:USUAL:MAX"),
    ],
)
def test_bad_options_are_one_line_before_anything_is_read(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*arguments.split(), "--checkpoint", "absent.safetensors", "--out", str(tmp_path / "plan.gconet")]
    try:
        code = run(build_engine.main, command)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_plan_for_another_gpu_is_not_tried_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_builder, "present_gpus", lambda: [Gpu("NVIDIA T4", "7.5")])
    assert "machine's GPU has 7.5: build with --compute-capability 7.5" in str(
        not_for_this_gpu("tensorrt-rtx", EngineSpec("fp16", 4))
    )
    assert not_for_this_gpu("tensorrt-rtx", EngineSpec("fp16", 4, ("7.5", "8.9"))) is None
    assert not_for_this_gpu("tensorrt", EngineSpec("fp16", 4)) is None
    assert not_for_this_gpu("openvino", EngineSpec("fp32", 4)) is None


def test_missing_and_unusable_libraries_are_told_with_the_command_that_mends_it(monkeypatch: Any) -> None:
    vendor = r"pip install tensorrt \(which fetches the library from NVIDIA; .*see docs\.nvidia\.com"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(TargetError, match=rf"TensorRT cannot be imported .*{vendor}"):
        load(TENSORRT)
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.13"))
    with pytest.raises(TargetError, match=rf"without its library: .*{vendor}"):
        load(TENSORRT)
    old = SimpleNamespace(__version__="8.6.1", Runtime=object, Builder=object)
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(TargetError, match=r"TensorRT 8\.6\.1 is too old, 10\.0 is needed"):
        load(TENSORRT)


def test_the_command_line_gives_the_options() -> None:
    parser = argparse.ArgumentParser()
    add_plan_arguments(parser)
    assert plan_options(parser.parse_args([])) == PlanOptions()
    text = (
        "--profile 1:2:4 --profile 5:5:8 --timing-cache t --optimization-level 5 --workspace 64 "
        "--version-compatible --hardware-compatible ampere+ --strip-weights --affinity-plugin"
    )
    options = plan_options(parser.parse_args(text.split()))
    profiles = (Profile(1, 2, 4), Profile(5, 5, 8))
    assert options == PlanOptions(profiles, Path("t"), 5, 64, True, "ampere+", True, True)
    assert options.given() == tuple(FLAGS.values())


@pytest.mark.parametrize(
    "text",
    ["--profile 4", "--profile 4:2:8", "--profile 0:1:2", "--profile a:b:c", "--workspace 0", "--workspace 1.5",
     "--optimization-level 6", "--hardware-compatible all"],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(text: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_plan_arguments(parser)
    with pytest.raises(argparse.ArgumentError, match=text.split()[0]):
        parser.parse_args(text.split())


def test_the_table_of_gpus_agrees_with_what_is_built() -> None:
    known = {capability for generation in GENERATIONS for capability in generation.compute_capabilities}
    buildable = {c for c in known if any(verdict(c, "tensorrt-rtx", p).works for p in GPU_PRECISIONS["tensorrt-rtx"])}
    assert buildable == set(TENSORRT_RTX.compute_capabilities)
    for product in (TENSORRT, TENSORRT_RTX):
        assert set(product.precisions) == set(GPU_PRECISIONS[product.target])
        assert set(product.default_capabilities) <= set(product.compute_capabilities)
    assert all(rule.verdict.reason for rule in RULES)
    assert {(row["target"], row["precision"]) for row in table()} == {
        (target, precision) for target, precisions in GPU_PRECISIONS.items() for precision in precisions
    }


def test_pascal_is_spoken_of_honestly() -> None:
    for target in ("tensorrt", "tensorrt-rtx"):
        assert not any(verdict("6.1", target, precision).works for precision in GPU_PRECISIONS[target])
    assert verdict("6.1", "onnxruntime", "fp32").works
    assert "1/64" in str(why_not("6.1", "onnxruntime", "fp16"))
    assert "before Pascal" in str(why_not("5.2", "tensorrt", "fp32"))
    assert why_not("13.0", "tensorrt", "fp16") is None


def test_gpus_are_asked_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(reference: Any, value: int) -> int:
        reference._obj.value = value
        return 0

    def name(buffer: Any, _length: int, device: Any) -> int:
        buffer.value = f"GPU {device.value}".encode()
        return 0

    attributes = {75: 8, 76: 9}  # as CUDA numbers major and minor
    driver = SimpleNamespace(
        cuInit=lambda _flags: 0,
        cuDeviceGetCount=lambda count: write(count, 2),
        cuDeviceGet=write,
        cuDeviceGetName=name,
        cuDeviceGetAttribute=lambda value, which, _device: write(value, attributes[which]),
    )
    monkeypatch.setattr("gconet.engines.tensorrt_gpu.ctypes.CDLL", lambda _name: driver)
    assert present_gpus() == [Gpu("GPU 0", "8.9"), Gpu("GPU 1", "8.9")]
    driver.cuInit = lambda _flags: 100  # CUDA_ERROR_NO_DEVICE
    assert present_gpus() == []


def test_doctor_shows_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor([]) == 0
    out = capsys.readouterr().out
    assert all(generation.examples in out for generation in GENERATIONS)
    assert all(rule.verdict.reason in out for rule in RULES)
    assert doctor(["--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["gpu_support"] == table()
    assert document["gpus"] == [dataclasses.asdict(gpu) for gpu in present_gpus()]
