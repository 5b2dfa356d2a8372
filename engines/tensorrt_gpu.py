"""Which NVIDIA GPUs this process can see, asked of the driver itself: no CUDA toolkit and no Python package needed."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
NAME_LENGTH = 128


@dataclass(frozen=True)
class Gpu:
    """A GPU's name and compute capability, such as "NVIDIA T4", "7.5"."""

    name: str
    compute_capability: str


def present_gpus() -> list[Gpu]:
    """The GPUs of this machine in CUDA's order; empty without a GPU, without a driver, or with all of them hidden."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [_describe(driver, index) for index in range(count.value)]


def _describe(driver: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(NAME_LENGTH)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, NAME_LENGTH, device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")
