"""CUDA through cuda-python: the primary context, memory, streams, events and graphs, each freed with its object.

Only the driver API is called: it needs no CUDA toolkit, and works on the primary context, which PyTorch, CuPy, TensorRT
and ONNX Runtime share. Pointers and stream handles are plain integers.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np

from gconet.runtime.errors import TargetError, one_line
from gconet.runtime.preprocess import FloatArray

INSTALL = "pip install cuda-bindings"


def load_driver() -> Any:
    """Import cuda-python's binding of the driver API; raises TargetError, with the command that installs it."""
    try:
        return importlib.import_module("cuda.bindings.driver")
    except (ImportError, OSError) as error:
        raise TargetError(f"cuda-python cannot be imported ({one_line(error)}): {INSTALL}") from error


class Device:
    """An NVIDIA GPU and its primary context; `with device:` makes that current on the calling thread.

    The context stays retained for the life of the process: other libraries hold memory in it that they free at exit, in
    any order.

    Attributes
    ----------
    index : as CUDA counts the GPUs that the process may see, from 0.
    name, compute_capability : such as "NVIDIA GeForce RTX 4090", "8.9".
    context : handle of the primary context.
    """

    def __init__(self, index: int) -> None:
        self.index, self.name = index, ""
        self.driver = load_driver()
        try:
            self.call("cuInit", 0)
            count = self.call("cuDeviceGetCount")
        except RuntimeError as error:  # cuda-python's own, where libcuda is missing
            raise TargetError(
                "no NVIDIA driver (libcuda) on this machine: install it from nvidia.com/drivers"
            ) from error
        if index >= count:
            raise TargetError(
                f"no GPU {index} on this machine, {count} can be seen (`nvidia-smi -L`): name another device"
            )
        handle = self.call("cuDeviceGet", index)
        self.name = self.call("cuDeviceGetName", 128, handle).split(b"\0")[0].decode(errors="replace")
        attribute = self.driver.CUdevice_attribute
        major, minor = (
            self.call("cuDeviceGetAttribute", which, handle)
            for which in (
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        self.compute_capability = f"{major}.{minor}"
        self.context = self.call("cuDevicePrimaryCtxRetain", handle)

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name})" if self.name else f"GPU {self.index}"

    def __enter__(self) -> Self:
        self.call("cuCtxPushCurrent", self.context)
        return self

    def __exit__(self, *_: object) -> None:
        self.call("cuCtxPopCurrent")

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the driver API and return its value, or None; raises TargetError for any other status."""
        status, *values = getattr(self.driver, function)(*arguments)
        if int(status):
            raise TargetError(f"{function} on {self} gives {status.name}")
        return values[0] if values else None

    def attribute(self, name: str, pointer: int) -> int | None:
        """What CUDA knows of an address, such as "CONTEXT" or "DEVICE_ORDINAL"; None if nothing."""
        which = getattr(self.driver.CUpointer_attribute, f"CU_POINTER_ATTRIBUTE_{name}")
        status, value = self.driver.cuPointerGetAttribute(which, pointer)
        return None if int(status) else int(value)


class Owned:
    """A handle of the driver's, freed by `close`, at the end of a `with` block, or with the last reference to it."""

    def __init__(self, device: Device, handle: Any, free: str) -> None:
        self.device = device
        self.handle = handle
        self._free = weakref.finalize(self, _free, device, free, handle)
        self._free.atexit = False  # the end of the process frees everything

    def close(self) -> None:
        """Free it now; a second call does nothing."""
        self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _free(device: Device, function: str, handle: Any) -> None:
    with contextlib.suppress(TargetError), device:  # a failure of earlier work is told again by whatever is called
        device.call(function, handle)


class DeviceMemory(Owned):
    """Memory of the GPU, aligned to at least 256 bytes; freeing it waits for the GPU to be idle."""

    def __init__(self, device: Device, size: int) -> None:
        with device:
            super().__init__(device, device.call("cuMemAlloc", max(size, 1)), "cuMemFree")
        self.size = size
        self.pointer = int(self.handle)


class PinnedArray(Owned):
    """A float32 array in page-locked memory, which the GPU copies from and to without the CPU; valid until closed."""

    def __init__(self, device: Device, shape: tuple[int, ...]) -> None:
        size = int(np.prod(shape)) * 4
        with device:
            super().__init__(device, device.call("cuMemHostAlloc", size, 0), "cuMemFreeHost")
        self.pointer = int(self.handle)
        self.array: FloatArray = np.ctypeslib.as_array(ctypes.cast(self.pointer, ctypes.POINTER(ctypes.c_float)), shape)


class Event(Owned):
    """A point in a stream's work; a `timed` one also knows when it was reached, at some cost."""

    def __init__(self, device: Device, timed: bool = False) -> None:
        with device:
            flags = 0 if timed else int(device.driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)
            super().__init__(device, device.call("cuEventCreate", flags), "cuEventDestroy")

    def record(self, stream: int) -> None:
        """Set it to the present end of a stream's work."""
        with self.device:
            self.device.call("cuEventRecord", self.handle, stream)

    def is_done(self) -> bool:
        """Whether the GPU is past it; failures of the work before it are left for `synchronize`."""
        with self.device:
            (status,) = self.device.driver.cuEventQuery(self.handle)
        return int(status) == 0

    def synchronize(self) -> None:
        """Let the calling thread wait for it."""
        with self.device:
            self.device.call("cuEventSynchronize", self.handle)

    def elapsed_ms(self, earlier: Event) -> float:
        """Milliseconds since another event; both are timed, and the GPU is past both."""
        with self.device:
            return float(self.device.call("cuEventElapsedTime", earlier.handle, self.handle))

    def hold(self, stream: int) -> None:
        """Let a stream's further work wait for it; returns at once."""
        with self.device:
            self.device.call("cuStreamWaitEvent", stream, self.handle, 0)


class Graph(Owned):
    """Captured work, launched as one."""

    def launch(self, stream: Stream) -> None:
        """Append it to a stream's work."""
        self.device.call("cuGraphLaunch", self.handle, stream.handle)


class Stream(Owned):
    """A queue of work for the GPU, apart from the default stream.

    Its methods want `with device:` around them; `address` is what other libraries call the stream's handle.
    """

    def __init__(self, device: Device) -> None:
        with device:
            flags = device.driver.CUstream_flags.CU_STREAM_NON_BLOCKING
            super().__init__(device, device.call("cuStreamCreate", int(flags)), "cuStreamDestroy")
        self.address = int(self.handle)

    def copy_to_device(self, target: int, source: int, size: int) -> None:
        """Copy `size` bytes from pinned memory at `source`."""
        self.device.call("cuMemcpyHtoDAsync", target, source, size, self.handle)

    def copy_to_host(self, target: int, source: int, size: int) -> None:
        """Copy `size` bytes to memory at `target`; if that is not pinned, the call waits for the copy."""
        self.device.call("cuMemcpyDtoHAsync", target, source, size, self.handle)

    def copy_on_device(self, target: int, source: int, size: int) -> None:
        """Copy `size` bytes from one place on the GPU to another."""
        self.device.call("cuMemcpyDtoDAsync", target, source, size, self.handle)

    def synchronize(self) -> None:
        """Wait for all work; raises TargetError if any of it failed."""
        self.device.call("cuStreamSynchronize", self.handle)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Make a graph of what `work` appends to this stream, without running it.

        Raises
        ------
        TargetError
            If something in it cannot be captured. The stream is as before then.
        """
        mode = self.device.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL  # other threads may go on
        self.device.call("cuStreamBeginCapture", self.handle, mode)
        try:
            work()
        except BaseException:
            status, graph = self.device.driver.cuStreamEndCapture(self.handle)
            if not int(status):
                self.device.call("cuGraphDestroy", graph)
            raise
        graph = self.device.call("cuStreamEndCapture", self.handle)
        try:
            return Graph(self.device, self.device.call("cuGraphInstantiate", graph, 0), "cuGraphExecDestroy")
        finally:
            self.device.call("cuGraphDestroy", graph)
