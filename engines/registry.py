"""Targets by name, imported on demand, and the choice `auto` makes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from gconet.engines.target import Target
from gconet.runtime.errors import TargetError, UsageError

TARGETS: Mapping[str, str] = {
    "openvino": "gconet.engines.openvino_target:OpenVinoTarget",
    "onnxruntime": "gconet.engines.onnxruntime_target:OnnxRuntimeTarget",
    "tensorrt-rtx": "gconet.engines.tensorrt_rtx_target:TensorRtRtxTarget",
}

# Fastest first, of those the runtime can run. OpenVINO uses the bf16 units of recent CPUs, ONNX Runtime does not.
AUTO_ORDER = ("openvino", "onnxruntime")


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


def choose_target() -> tuple[Target, str]:
    """The fastest target this machine can run, and why it is that one.

    Raises
    ------
    TargetError
        If none can run, with each one's reason.
    """
    passed_over: list[str] = []
    for name in AUTO_ORDER:
        target = get_target(name)
        reason = target.runs_here()
        if reason is None:
            return target, "; ".join([*passed_over, f"{name} is the fastest that runs here"])
        passed_over.append(f"{name} not: {reason}")
    raise TargetError(f"no target can run on this machine: {'; '.join(passed_over)}")
