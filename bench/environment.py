"""What a measurement was taken on: processor, libraries, the bundle. No host names, no paths."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from gconet.engines.installed import installed_version
from gconet.runtime.bundle import Bundle, describe_file
from gconet.runtime.manifest import MANIFEST_NAME

LIBRARIES = ("gconet-deploy", "numpy", "pillow", "opencv-python-headless", "pysodmetrics", "torch", "onnx",
             "onnxruntime", "onnxruntime-gpu", "openvino", "onnxruntime-ep-nv-tensorrt-rtx-cu12",
             "tensorrt-rtx-cu12-bindings")  # fmt: skip
# Instruction sets that decide how fast bf16, fp16 and int8 are on x86.
TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")


def describe_environment() -> dict[str, Any]:
    """Processor, operating system and library versions, ready for JSON."""
    name, flags = _processor()
    return {
        "cpu": name,
        "cpu_flags": [flag for flag in TELLING_FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": installed_libraries(),
    }


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Which bundle was measured, ready for JSON; the manifest's hash stands for every file, since it has theirs."""
    manifest = bundle.manifest
    return {
        "target": manifest.target,
        "target_version": manifest.target_version,
        "precision": manifest.precision,
        "size": manifest.preprocessing.size,
        "manifest_sha256": describe_file(bundle.folder / MANIFEST_NAME).sha256,
        "checkpoint": dict(manifest.checkpoint),
    }


def installed_libraries() -> dict[str, str]:
    """Versions of the libraries that matter to a measurement, of those installed."""
    versions = {name: installed_version(name) for name in LIBRARIES}
    return {name: version for name, version in versions.items() if version}


def _processor() -> tuple[str, set[str]]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine(), set()
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())
