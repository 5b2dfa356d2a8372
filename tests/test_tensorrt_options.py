"""Building plans: progress, flags, refusals, and what needs a GPU."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import onnx
import pytest
from conftest import TINY_SIZE, require_target, require_tensorrt_rtx
from tensorrt_builds import ADA, ONE_PROFILE, quantised_graph, read_network
from tqdm import tqdm

import gconet.runtime as gr
from gconet.engines import tensorrt_builder
from gconet.engines.bundle_writer import describe_files, write_manifest
from gconet.engines.plan_options import PlanOptions
from gconet.engines.registry import get_target
from gconet.engines.target import EngineSpec
from gconet.engines.tensorrt_builder import LAYERS_NAME, PLAN_NAME, build_plan, plan_facts
from gconet.engines.tensorrt_config import Job, configure
from gconet.engines.tensorrt_gpu import Gpu
from gconet.engines.tensorrt_products import TENSORRT, TENSORRT_RTX
from gconet.engines.tensorrt_progress import Phases, ProgressBar
from gconet.export.to_onnx import export_detect
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.manifest import Manifest
from gconet.train.checkpoint import Checkpoint
from gconet.train.model import GCoNet


def test_progress_of_nested_phases_only_grows() -> None:
    phases = Phases()
    phases.start("engine", 4)
    seen = [phases.progress()]
    for outer in range(4):
        phases.start("layers", 2)
        for inner in range(2):
            phases.step("layers", inner)
            seen.append(phases.progress())
        phases.finish("layers")
        phases.step("engine", outer)
        seen.append(phases.progress())
    assert seen == sorted(seen)
    assert (seen[0], seen[1], seen[-1]) == (0.0, 0.125, 1.0)
    assert phases.innermost() == "engine"
    phases.finish("engine")
    phases.step("engine", 0)  # told late, by another thread
    assert (phases.innermost(), phases.progress()) == ("", 0.0)


def test_the_builder_moves_the_bar(half_graph: onnx.ModelProto, tmp_path: Path, monkeypatch: Any) -> None:
    require_tensorrt_rtx()
    bars: list[Any] = []

    def watched(*arguments: Any, **options: Any) -> Any:
        bars.append(tqdm(*arguments, **{**options, "disable": False, "file": io.StringIO()}))
        return bars[-1]

    monkeypatch.setattr(tensorrt_builder, "tqdm", watched)
    build_plan(Job(TENSORRT_RTX, EngineSpec("fp16", 4, (), ONE_PROFILE), ()), half_graph, tmp_path)
    (bar,) = bars
    assert 0.5 < bar.n <= 1.0
    assert bar.desc


def test_ctrl_c_ends_a_build_and_leaves_nothing(half_graph: onnx.ModelProto, tmp_path: Path) -> None:
    """In a process of its own, without other engines' native libraries: what those do with signals is theirs."""
    require_tensorrt_rtx()
    folder, source = tmp_path / "bundle", tmp_path / "graph.onnx"
    folder.mkdir()
    onnx.save(half_graph, source)
    command = [sys.executable, "-c", INTERRUPTED, str(source), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert result.stdout.splitlines()[-1:] == ["interrupted"], result.stderr
    assert list(folder.iterdir()) == []


INTERRUPTED = """
import signal, sys, threading
from pathlib import Path
import onnx
from gconet.engines import tensorrt_progress
from gconet.engines.target import EngineSpec
from gconet.engines.tensorrt_builder import build_plan
from gconet.engines.tensorrt_config import Job
from gconet.engines.tensorrt_products import TENSORRT_RTX

pressed, stopped, stop = [], threading.Event(), tensorrt_progress.ProgressBar.stop

class Pressed(tensorrt_progress.Phases):
    def step(self, name, index):
        if not pressed:
            pressed.append(name)
            # To the main thread, as from a terminal; raised here it would be seen only once that thread wakes up.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            stopped.wait(60)  # so that the build is not over before it is stopped
        super().step(name, index)

def remember(bar):
    stop(bar)
    stopped.set()

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
tensorrt_progress.Phases = Pressed
tensorrt_progress.ProgressBar.stop = remember
try:
    build_plan(Job(TENSORRT_RTX, EngineSpec("fp16", 256), ()), onnx.load(sys.argv[1]), Path(sys.argv[2]))
except KeyboardInterrupt:
    print("interrupted" if pressed and stopped.is_set() else "too early")
"""


def test_a_stopped_build_is_told_so(rtx: ModuleType) -> None:
    progress = ProgressBar(rtx, tqdm(total=1.0, disable=True))
    progress.monitor.phase_start("engine", None, 2)
    assert progress.monitor.step_complete("engine", 0)
    progress.stop()
    assert not progress.monitor.step_complete("engine", 1)


def test_a_builder_that_fails_says_why_and_what_mends_it(tiny_network: GCoNet, tmp_path: Path) -> None:
    require_tensorrt_rtx()
    options = dataclasses.replace(ONE_PROFILE, workspace_mib=1)
    graph = export_detect(tiny_network, TINY_SIZE, "fp32")
    with pytest.raises(TargetError, match=r"built no plan: .*raise --workspace.*workspace limit") as caught:
        build_plan(Job(TENSORRT_RTX, EngineSpec("fp32", 4, (), options), ()), graph, tmp_path)
    assert "\n" not in str(caught.value)


# TensorRT, as far as its interface is the same


@pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX:DeprecationWarning")
def test_timings_are_kept_beside_the_bundle_and_read_again(
    half_graph: onnx.ModelProto, tensorrt_by_rtx: Callable[[EngineSpec], Job], rtx: ModuleType, tmp_path: Path
) -> None:
    job = tensorrt_by_rtx(EngineSpec("fp16", 4, (), dataclasses.replace(ONE_PROFILE, optimization_level=2)))
    folder = tmp_path / "staged"
    folder.mkdir()
    build_plan(job, half_graph, folder)
    cache = tmp_path / f"tensorrt-{rtx.__version__}.timing-cache"
    assert cache.stat().st_size > 0
    facts = plan_facts(folder)
    assert facts["compute_capabilities"] == ("8.9",)
    assert facts["plan_options"] == {
        "optimization_level": 2, "workspace_mib": None, "version_compatible": False, "hardware": None,
        "affinity_plugin": False,
    }  # fmt: skip
    cache.write_bytes(b"of another version")
    build_plan(job, half_graph, folder)
    assert cache.read_bytes() != b"of another version"


def test_a_timing_cache_that_is_no_file_is_told(
    half_graph: onnx.ModelProto, tensorrt_by_rtx: Callable[[EngineSpec], Job], tmp_path: Path
) -> None:
    options = dataclasses.replace(ONE_PROFILE, timing_cache=tmp_path)
    with pytest.raises(UsageError, match=r"--timing-cache .*directory"):
        build_plan(tensorrt_by_rtx(EngineSpec("fp16", 4, (), options)), half_graph, tmp_path)


@pytest.mark.parametrize(
    ("hardware", "capabilities", "level"),
    [("ampere+", (), "AMPERE_PLUS"), ("same-capability", ("8.9",), "SAME_COMPUTE_CAPABILITY")],
)
def test_plans_for_more_gpus_than_the_one_at_hand(
    hardware: str, capabilities: tuple[str, ...], level: str, rtx: ModuleType
) -> None:
    job = Job(TENSORRT, EngineSpec("int8", 4, (), dataclasses.replace(ONE_PROFILE, hardware=hardware)), (ADA,))
    *keep, builder, network = read_network(rtx, quantised_graph())
    config = MagicMock()  # that of TensorRT for RTX takes a level and forgets it
    config.add_optimization_profile.return_value = 0
    stand_in = SimpleNamespace(
        create_builder_config=lambda: config, create_optimization_profile=builder.create_optimization_profile
    )
    assert configure(rtx, job, stand_in, network.get_input(0)) is config
    assert config.hardware_compatibility_level.name == level
    assert job.compute_capabilities == capabilities
    older = SimpleNamespace(**{**vars(rtx), "HardwareCompatibilityLevel": object()})
    with pytest.raises(TargetError, match=rf"has no --hardware-compatible {re.escape(hardware)}: update it"):
        configure(older, job, stand_in, network.get_input(0))  # type: ignore[arg-type]
    del keep


@pytest.mark.parametrize(("product", "refit"), [(TENSORRT, "REFIT_IDENTICAL"), (TENSORRT_RTX, "REFIT")])
def test_options_become_builder_flags(product: Any, refit: str, rtx: ModuleType) -> None:
    options = PlanOptions((), None, 4, 512, True, None, True)
    *keep, builder, network = read_network(rtx, quantised_graph())
    config = configure(rtx, Job(product, EngineSpec("int8", 4, (), options), (ADA,)), builder, network.get_input(0))
    flags = {name for name, flag in rtx.BuilderFlag.__members__.items() if config.get_flag(flag)}
    assert {"VERSION_COMPATIBLE", "STRIP_PLAN", refit} <= flags
    assert not flags & ({"REFIT", "REFIT_IDENTICAL", "TF32"} - {refit})
    assert config.builder_optimization_level == 4
    assert config.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) == 512 << 20
    del keep


@pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX:DeprecationWarning")
def test_weights_that_are_left_out_go_beside_the_plan(
    half_graph: onnx.ModelProto, tensorrt_by_rtx: Callable[[EngineSpec], Job], tmp_path: Path, monkeypatch: Any
) -> None:
    """Whether the plan takes them back is tested on GPUs, without which none is built."""
    monkeypatch.setattr(tensorrt_builder, "_compile", lambda *_: b"plan")
    options = dataclasses.replace(ONE_PROFILE, strip_weights=True, timing_cache=tmp_path / "timings")
    folder = tmp_path / "staged"
    folder.mkdir()
    files = build_plan(tensorrt_by_rtx(EngineSpec("fp16", 4, (), options)), half_graph, folder)
    assert {path.name for path in files} == {PLAN_NAME, LAYERS_NAME, "weights.onnx"}
    assert plan_facts(folder)["weights_stripped"]
    weights = onnx.load(folder / "weights.onnx")
    assert not weights.functions  # the refitter does not look into them
    assert {tensor.name for tensor in half_graph.graph.initializer} <= {t.name for t in weights.graph.initializer}


# Refusals


def test_gpus_that_cannot_do_it_are_told_with_what_works_there(half_graph: onnx.ModelProto, tmp_path: Path) -> None:
    def build(
        product: Any, precision: str, gpu: Gpu | None, capabilities: tuple[str, ...] = (), **options: Any
    ) -> None:
        spec = EngineSpec(precision, 4, capabilities, PlanOptions(**options))
        build_plan(Job(product, spec, (gpu,) if gpu else ()), half_graph, tmp_path)

    with pytest.raises(TargetError, match=r"builds on the GPU that will run the plan.*--target tensorrt-rtx"):
        build(TENSORRT, "fp16", None)
    with pytest.raises(
        TargetError, match=r"8\.6 was the last for Pascal.*--target onnxruntime --precision fp32 \(onnxr"
    ):
        build(TENSORRT, "fp16", Gpu("NVIDIA GeForce GTX 1080 Ti", "6.1"))
    with pytest.raises(TargetError, match=r"10\.5 removed Volta"):
        build(TENSORRT, "int8", Gpu("Tesla V100", "7.0"))
    for precision in ("fp32", "int8"):
        with pytest.raises(TargetError, match=rf"RTX {precision} for compute capability 7\.5: .*what works there"):
            build(TENSORRT_RTX, precision, None, ("8.9", "7.5"))
    with pytest.raises(UsageError, match=r"ampere\+ needs an Ampere GPU"):
        build(TENSORRT, "fp16", Gpu("Tesla T4", "7.5"), hardware="ampere+")
    with pytest.raises(TargetError, match=r"build with --strip-weights on a machine that has one"):
        build(TENSORRT_RTX, "fp16", None, strip_weights=True)
    assert list(tmp_path.iterdir()) == []


def test_the_affinity_plugin_takes_the_place_of_the_function(
    tensorrt_by_rtx: Callable[[EngineSpec], Job],
    half_graph: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parser here has no such plugin: that it asks for one shows that the function is not what it reads."""
    affinity_plugin = pytest.importorskip("gconet.engines.affinity_plugin", reason="needs triton")
    registered: list[str] = []
    monkeypatch.setattr(affinity_plugin, "register_plugin", lambda _trt, capability: registered.append(capability))
    options = dataclasses.replace(ONE_PROFILE, affinity_plugin=True)
    with pytest.raises(TargetError, match=r"refuses the graph: .*Plugin not found"):
        build_plan(tensorrt_by_rtx(EngineSpec("fp16", 4, (), options)), half_graph, tmp_path)
    assert registered == [ADA.compute_capability]
    assert list(tmp_path.iterdir()) == []


# On a GPU


def bundle_of(target: str, graph: onnx.ModelProto, checkpoint: Checkpoint, out: Path, options: PlanOptions) -> Path:
    """A bundle as the build writes it, but for the measurements."""
    out.mkdir()
    spec = EngineSpec("fp16", 4, (), options)
    files = describe_files(get_target(target).build(graph, spec, out))
    preprocessing = checkpoint.info.preprocessing
    architecture = dataclasses.asdict(checkpoint.info.architecture)
    version = get_target(target).version()
    manifest = Manifest(target, "fp16", version, preprocessing, 4, files, architecture, {}, 18, "2026-01-01T00:00:00Z")
    write_manifest(out, dataclasses.replace(manifest, **plan_facts(out)))
    return out


@pytest.mark.gpu
@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_a_plan_without_weights_is_smaller_and_gives_the_same_maps(
    target: str, half_graph: onnx.ModelProto, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    require_target(target)
    if problem := get_target(target).runs_here():
        pytest.skip(problem)
    images = np.random.default_rng(1).standard_normal((3, 3, TINY_SIZE, TINY_SIZE), np.float32)
    maps = {}
    for name, stripped in (("whole", False), ("stripped", True)):
        options = dataclasses.replace(ONE_PROFILE, strip_weights=stripped)
        bundle = bundle_of(target, half_graph, tiny_checkpoint, tmp_path / name, options)
        maps[name] = gr.load(bundle).session.infer({"images": images})["maps"]
    sizes = {name: (tmp_path / name / PLAN_NAME).stat().st_size for name in maps}
    assert sizes["stripped"] < sizes["whole"]
    assert (tmp_path / "stripped" / "weights.onnx").exists()
    np.testing.assert_allclose(maps["stripped"], maps["whole"], atol=2e-3)
    inspected = json.loads((tmp_path / "whole" / "detect.engine.json").read_text("utf-8"))
    assert inspected["Layers"]
