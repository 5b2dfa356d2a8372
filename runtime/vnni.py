"""Whether an x86 CPU multiplies bytes without overflow."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FLAGS = {"avx512_vnni", "avx_vnni"}  # a CPU with AMX has the first


def lacks_vnni() -> bool:
    """Whether this CPU is known to be without VNNI, as before 2019 all were.

    Such CPUs add two products of bytes in 16 bits, where they saturate: with our range of weights, maps are wrong.
    False on other architectures, which add in 32 bits, and where the system does not tell.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not CPUINFO.exists():
        return False
    lines = CPUINFO.read_text("utf-8", "replace").splitlines()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return flags is not None and FLAGS.isdisjoint(flags)
