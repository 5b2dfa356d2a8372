"""Whether an x86 CPU multiplies bytes without overflow."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FLAGS = {"avx512_vnni", "avx_vnni"}  # a CPU with AMX has the first


def has_vnni() -> bool | None:
    """Whether this CPU has VNNI; those before 2019 have not.

    Without, x86 CPUs add two products of bytes in 16 bits, where they saturate: with our range of weights, maps are
    wrong. None on other architectures, which add in 32 bits, and where the system does not tell.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not CPUINFO.exists():
        return None
    lines = CPUINFO.read_text("utf-8", "replace").splitlines()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else not FLAGS.isdisjoint(flags)
