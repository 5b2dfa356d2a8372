"""Clocks and signs of throttling, where the system lets them be read: what may explain a drift."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

UNREADABLE = "not readable"
GPU_FIELDS = ("name", "clocks.sm", "clocks.mem", "temperature.gpu", "clocks_event_reasons.active")


def read_clocks(root: Path = Path("/")) -> dict[str, Any]:
    """A snapshot, ready for JSON; what cannot be read says so.

    Parameters
    ----------
    root : below which `proc` and `sys` lie.
    """
    cpus = root / "sys/devices/system/cpu"
    return {
        "cpu_mhz": _frequencies(root / "proc/cpuinfo"),
        "cpu_governors": _distinct(cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")),
        "cpu_throttle_events": _total(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")),
        "load_average": _load(root / "proc/loadavg"),
        "stolen_ticks": _stolen(root / "proc/stat"),
        "gpus": _gpus(),
    }


def _frequencies(path: Path) -> list[float] | str:
    lines = _text(path).splitlines()
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")] or UNREADABLE


def _load(path: Path) -> float | str:
    words = _text(path).split()
    return float(words[0]) if words else UNREADABLE


def _stolen(path: Path) -> int | str:
    """Time in which a virtual machine was not given its CPUs, in the kernel's ticks since it started."""
    words = _text(path).partition("\n")[0].split()
    return int(words[8]) if len(words) > 8 else UNREADABLE


def _distinct(paths: Any) -> list[str] | str:
    return sorted({text for path in paths if (text := _text(path).strip())}) or UNREADABLE


def _total(paths: Any) -> int | str:
    counts = [int(text) for path in paths if (text := _text(path).strip()).isdecimal()]
    return sum(counts) if counts else UNREADABLE


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _gpus() -> list[dict[str, str]] | str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "no nvidia-smi"
    command = [program, f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        return UNREADABLE
    return [dict(zip(GPU_FIELDS, line.split(", "), strict=False)) for line in result.stdout.splitlines()]
