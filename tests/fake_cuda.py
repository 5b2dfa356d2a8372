"""The part of cuda-python's driver API that the runtime calls, on the host's memory, for machines without a GPU.

A stream's work runs only when somebody waits for it, so that a missing wait gives wrong answers, not late ones. Every
call wants a current context, every freed address is forgotten, and a test can see what is left.
"""
# ruff: noqa: N801, N802, N803, ARG002 (functions, enumerations and arguments are named as in cuda-python)

from __future__ import annotations

import ctypes
import enum
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], None]
CONTEXT = 77


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class CUdevice_attribute(enum.IntEnum):
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class CUpointer_attribute(enum.IntEnum):
    CU_POINTER_ATTRIBUTE_CONTEXT = 1
    CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9


class CUevent_flags(enum.IntEnum):
    CU_EVENT_DISABLE_TIMING = 2


class CUstream_flags(enum.IntEnum):
    CU_STREAM_NON_BLOCKING = 1


class CUstreamCaptureMode(enum.IntEnum):
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class FakeStream:
    """Work that waits to be run, and what is captured meanwhile."""

    def __init__(self) -> None:
        self.queue: deque[Work] = deque()
        self.captured: list[Work] | None = None
        self.broken = False

    def append(self, work: Work) -> None:
        (self.queue if self.captured is None else self.captured).append(work)

    def drain(self, until: Callable[[], bool] = lambda: False) -> None:
        while self.queue and not until():
            self.queue.popleft()()


class Marker:
    """A point in a stream's work."""

    def __init__(self, stream: FakeStream) -> None:
        self.stream, self.done, self.reached_ns = stream, False, 0

    def reach(self) -> None:
        self.done, self.reached_ns = True, time.perf_counter_ns()

    def wait(self) -> None:
        self.stream.drain(lambda: self.done)
        assert self.done, "an event was waited for that nothing will reach"


class FakeDriver:
    """Stands in for the module `cuda.bindings.driver`."""

    CUresult = CUresult
    CUdevice_attribute = CUdevice_attribute
    CUpointer_attribute = CUpointer_attribute
    CUevent_flags = CUevent_flags
    CUstream_flags = CUstream_flags
    CUstreamCaptureMode = CUstreamCaptureMode

    def __init__(self, devices: int = 1, capability: tuple[int, int] = (8, 9), memory_limit: int = 10**9) -> None:
        self.devices, self.capability, self.memory_limit = devices, capability, memory_limit
        self.calls: Counter[str] = Counter()
        self.memory: dict[int, ctypes.Array[Any]] = {}  # of the GPU
        self.pinned: dict[int, ctypes.Array[Any]] = {}
        self.streams: dict[int, FakeStream] = {1: FakeStream()}
        self.events: dict[int, Marker | None] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.foreign_contexts: dict[int, int] = {}  # address -> the context it is of, where that is not ours
        self._next = 1000
        self._lock = threading.RLock()
        self._thread = threading.local()

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if not name.startswith("cu") or not callable(found):
            return found
        needs_context = name.startswith(("cuMem", "cuStream", "cuEvent", "cuGraph", "cuPointer"))

        def call(*arguments: Any) -> tuple[Any, ...]:
            with self._lock:
                self.calls[name] += 1
                if needs_context and not self.contexts():
                    return CUresult.CUDA_ERROR_INVALID_CONTEXT, None
                result = found(*arguments)
            return result if isinstance(result, tuple) else (result,)

        return call

    def contexts(self) -> list[int]:
        """The calling thread's stack of contexts."""
        if not hasattr(self._thread, "stack"):
            self._thread.stack = []
        return self._thread.stack

    def tensor(self, pointer: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A float32 array in the GPU's memory, as kernels see it."""
        size = int(np.prod(shape)) * 4
        for start, block in self.memory.items():
            if start <= pointer and pointer + size <= start + len(block):
                return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape)
        raise AssertionError(f"{pointer:#x} is no memory of the GPU")

    def upload(self, values: NDArray[np.float32]) -> int:
        """Memory of the GPU, allocated by somebody else, that holds `values`."""
        pointer = self._allocate(values.nbytes)
        self.tensor(pointer, values.shape)[...] = values
        return pointer

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _allocate(self, size: int) -> int:
        block = (ctypes.c_byte * size)()
        self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def cuInit(self, Flags: int) -> CUresult:
        return CUresult.CUDA_SUCCESS if Flags == 0 else CUresult.CUDA_ERROR_INVALID_VALUE

    def cuDeviceGetCount(self) -> tuple[CUresult, int]:
        return CUresult.CUDA_SUCCESS, self.devices

    def cuDeviceGet(self, ordinal: int) -> tuple[CUresult, int]:
        return CUresult.CUDA_SUCCESS, ordinal

    def cuDeviceGetName(self, length: int, dev: int) -> tuple[CUresult, bytes]:
        return CUresult.CUDA_SUCCESS, f"Imaginary {dev}".encode().ljust(length, b"\0")

    def cuDeviceGetAttribute(self, attrib: CUdevice_attribute, dev: int) -> tuple[CUresult, int]:
        is_minor = attrib == CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
        return CUresult.CUDA_SUCCESS, self.capability[is_minor]

    def cuDevicePrimaryCtxRetain(self, dev: int) -> tuple[CUresult, int]:
        return CUresult.CUDA_SUCCESS, CONTEXT + dev

    def cuCtxPushCurrent(self, ctx: int) -> CUresult:
        self.contexts().append(ctx)
        return CUresult.CUDA_SUCCESS

    def cuCtxPopCurrent(self) -> tuple[CUresult, int]:
        return CUresult.CUDA_SUCCESS, self.contexts().pop()

    def cuPointerGetAttribute(self, attribute: CUpointer_attribute, ptr: int) -> tuple[CUresult, int | None]:
        for start, block in self.memory.items():
            if start <= ptr < start + len(block):
                if attribute == CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
                    return CUresult.CUDA_SUCCESS, 0
                return CUresult.CUDA_SUCCESS, self.foreign_contexts.get(start, CONTEXT)
        return CUresult.CUDA_ERROR_INVALID_VALUE, None

    def cuMemAlloc(self, bytesize: int) -> tuple[CUresult, int | None]:
        if sum(map(len, self.memory.values())) + bytesize > self.memory_limit:
            return CUresult.CUDA_ERROR_OUT_OF_MEMORY, None
        return CUresult.CUDA_SUCCESS, self._allocate(bytesize)

    def cuMemFree(self, dptr: int) -> CUresult:
        for stream in self.streams.values():
            stream.drain()
        return self._forget(self.memory, dptr)

    def cuMemHostAlloc(self, bytesize: int, Flags: int) -> tuple[CUresult, int]:
        block = (ctypes.c_byte * bytesize)()
        self.pinned[ctypes.addressof(block)] = block
        return CUresult.CUDA_SUCCESS, ctypes.addressof(block)

    def cuMemFreeHost(self, p: int) -> CUresult:
        return self._forget(self.pinned, p)

    def cuMemcpyHtoDAsync(self, dstDevice: int, srcHost: int, ByteCount: int, hStream: int) -> CUresult:
        return self._copy(dstDevice, srcHost, ByteCount, hStream)

    def cuMemcpyDtoHAsync(self, dstHost: int, srcDevice: int, ByteCount: int, hStream: int) -> CUresult:
        return self._copy(dstHost, srcDevice, ByteCount, hStream)

    def cuMemcpyDtoDAsync(self, dstDevice: int, srcDevice: int, ByteCount: int, hStream: int) -> CUresult:
        return self._copy(dstDevice, srcDevice, ByteCount, hStream)

    def _copy(self, target: int, source: int, size: int, stream: int) -> CUresult:
        self.streams[stream].append(lambda: ctypes.memmove(target, source, size) and None)
        return CUresult.CUDA_SUCCESS

    def cuStreamCreate(self, Flags: int) -> tuple[CUresult, int]:
        number = self._number()
        self.streams[number] = FakeStream()
        return CUresult.CUDA_SUCCESS, number

    def cuStreamDestroy(self, hStream: int) -> CUresult:
        self.streams[hStream].drain()
        return self._forget(self.streams, hStream)

    def cuStreamSynchronize(self, hStream: int) -> CUresult:
        if self.streams[hStream].captured is not None:
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        self.streams[hStream].drain()
        return CUresult.CUDA_SUCCESS

    def cuStreamWaitEvent(self, hStream: int, hEvent: int, Flags: int) -> CUresult:
        if (marker := self.events[hEvent]) is not None:
            self.streams[hStream].append(marker.wait)
        return CUresult.CUDA_SUCCESS

    def cuStreamBeginCapture(self, hStream: int, mode: CUstreamCaptureMode) -> CUresult:
        self.streams[hStream].captured, self.streams[hStream].broken = [], False
        return CUresult.CUDA_SUCCESS

    def cuStreamEndCapture(self, hStream: int) -> tuple[CUresult, int | None]:
        stream = self.streams[hStream]
        work, stream.captured = stream.captured or [], None
        if stream.broken:
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
        number = self._number()
        self.graphs[number] = work
        return CUresult.CUDA_SUCCESS, number

    def cuGraphInstantiate(self, hGraph: int, flags: int) -> tuple[CUresult, int]:
        number = self._number()
        self.executables[number] = self.graphs[hGraph]
        return CUresult.CUDA_SUCCESS, number

    def cuGraphDestroy(self, hGraph: int) -> CUresult:
        return self._forget(self.graphs, hGraph)

    def cuGraphExecDestroy(self, hGraphExec: int) -> CUresult:
        return self._forget(self.executables, hGraphExec)

    def cuGraphLaunch(self, hGraphExec: int, hStream: int) -> CUresult:
        for work in self.executables[hGraphExec]:
            self.streams[hStream].append(work)
        return CUresult.CUDA_SUCCESS

    def cuEventCreate(self, Flags: int) -> tuple[CUresult, int]:
        number = self._number()
        self.events[number] = None
        return CUresult.CUDA_SUCCESS, number

    def cuEventDestroy(self, hEvent: int) -> CUresult:
        return self._forget(self.events, hEvent)

    def cuEventRecord(self, hEvent: int, hStream: int) -> CUresult:
        marker = Marker(self.streams[hStream])
        self.events[hEvent] = marker
        self.streams[hStream].append(marker.reach)
        return CUresult.CUDA_SUCCESS

    def cuEventQuery(self, hEvent: int) -> CUresult:
        marker = self.events[hEvent]
        return CUresult.CUDA_SUCCESS if marker is None or marker.done else CUresult.CUDA_ERROR_NOT_READY

    def cuEventSynchronize(self, hEvent: int) -> CUresult:
        if (marker := self.events[hEvent]) is not None:
            marker.wait()
        return CUresult.CUDA_SUCCESS

    def cuEventElapsedTime(self, hStart: int, hEnd: int) -> tuple[CUresult, float | None]:
        start, end = self.events[hStart], self.events[hEnd]
        if start is None or end is None or not (start.done and end.done):
            return CUresult.CUDA_ERROR_NOT_READY, None
        return CUresult.CUDA_SUCCESS, (end.reached_ns - start.reached_ns) / 1e6

    @staticmethod
    def _forget(things: dict[int, Any], key: int) -> CUresult:
        return CUresult.CUDA_SUCCESS if things.pop(key, things) is not things else CUresult.CUDA_ERROR_INVALID_VALUE


class FakeArray:
    """Somebody's array on the imaginary GPU, with `__cuda_array_interface__` only."""

    def __init__(self, driver: FakeDriver, values: NDArray[np.float32], **changes: Any) -> None:
        self.driver, self.shape = driver, values.shape
        self.pointer = driver.upload(values)
        self.__cuda_array_interface__ = {
            "shape": values.shape,
            "typestr": "<f4",
            "data": (self.pointer, False),
            "version": 3,
        } | changes

    def read(self) -> NDArray[np.float32]:
        """What it holds at this moment, computed or not."""
        return self.driver.tensor(self.pointer, self.shape).copy()
