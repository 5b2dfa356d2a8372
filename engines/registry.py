"""Targets by name, imported on demand, and the choice `auto` makes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from gconet.engines.installed import installed_version
from gconet.engines.target import Target
from gconet.engines.tensorrt_gpu import present_gpus
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.onnxruntime_providers import INSTALL_GPU

TARGETS: Mapping[str, str] = {
    "openvino": "gconet.engines.openvino_target:OpenVinoTarget",
    "onnxruntime": "gconet.engines.onnxruntime_target:OnnxRuntimeTarget",
    "tensorrt": "gconet.engines.tensorrt_target:TensorRtTarget",
    "tensorrt-rtx": "gconet.engines.tensorrt_rtx_target:TensorRtRtxTarget",
}

# Fastest first, of those the runtime can run. TensorRT tunes its kernels on the GPU itself, RTX compiles them for it;
# OpenVINO uses the bf16 units of recent CPUs, ONNX Runtime does not.
AUTO_ORDER = ("tensorrt", "tensorrt-rtx", "openvino", "onnxruntime")

ONNXRUNTIME_FROM = 7.5  # compute capability that its current wheels want


def get_target(name: str) -> Target:
    """The target of that name; its library is not imported yet.

    Raises
    ------
    UsageError
        If there is no such target.
    """
    if name not in TARGETS:
        raise UsageError(f"unknown target {name!r}: choose auto, {', '.join(sorted(TARGETS))}")
    module, _, attribute = TARGETS[name].partition(":")
    target: Target = getattr(importlib.import_module(module), attribute)()
    return target


def choose_target(precision: str = "auto") -> tuple[Target, str]:
    """The fastest target this machine can run in a precision, and why it is that one.

    Raises
    ------
    TargetError
        If none can, with each one's reason.
    """
    passed_over: list[str] = []
    for name in AUTO_ORDER:
        target = get_target(name)
        if precision not in ("auto", *target.precisions):
            reason: str | None = f"it builds {', '.join(target.precisions)}"
        else:
            reason = target.runs_here(None if precision == "auto" else precision)
        if reason is None:
            return target, "; ".join([*passed_over, f"{name} is the fastest that runs here", *_unused_gpu(name)])
        passed_over.append(f"{name} not: {reason}")
    wanted = "" if precision == "auto" else f" in {precision}"
    raise TargetError(f"no target can run{wanted} on this machine, name one with --target: {'; '.join(passed_over)}")


def _unused_gpu(chosen: str) -> list[str]:
    """Which GPU a target for CPUs leaves idle, and what uses it: ONNX Runtime does, but only where it is told to."""
    gpus = [gpu for gpu in present_gpus() if float(gpu.compute_capability) >= ONNXRUNTIME_FROM]
    if chosen.startswith("tensorrt") or not gpus:
        return []
    build = "build with --target onnxruntime --precision fp16, and run with --device cuda"
    if not installed_version("onnxruntime-gpu"):
        build = f"pip uninstall -y onnxruntime, {INSTALL_GPU}, {build}"
    return [f"this machine's {gpus[0].name} goes unused: to use it, {build}"]
