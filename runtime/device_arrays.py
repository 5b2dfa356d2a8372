"""Arrays on the GPU, taken in and handed out without a copy: DLPack, and `__cuda_array_interface__` version 3.

One or both of them are spoken by PyTorch, CuPy, Numba, JAX, RAPIDS and PyCUDA's `GPUArray`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gconet.runtime import dlpack
from gconet.runtime.cuda import Device, Event, PinnedArray, Stream
from gconet.runtime.errors import UsageError, one_line
from gconet.runtime.preprocess import FloatArray

FLOAT32 = np.dtype(np.float32)
LEGACY_STREAM = 1  # the default stream, as both protocols and the driver API number it


@dataclass(frozen=True)
class ForeignArray:
    """Memory of the GPU that belongs to somebody else.

    Attributes
    ----------
    pointer : address of the first element.
    shape : of the C-contiguous float32 array there.
    owner : keeps the memory alive.
    """

    pointer: int
    shape: tuple[int, ...]
    owner: object

    @property
    def end(self) -> int:
        """Address behind the last element."""
        return self.pointer + math.prod(self.shape) * FLOAT32.itemsize


class DeviceArray:
    """A C-contiguous float32 array on the GPU, as sessions return it.

    It may still be computed when it is returned: consumers by DLPack or `__cuda_array_interface__` wait on the GPU for
    it, others call `wait_on` or `synchronize` first. Take it over without a copy by `torch.from_dlpack(maps)`,
    `cupy.from_dlpack(maps)`, or
    `pycuda.gpuarray.GPUArray(maps.shape, maps.dtype, base=maps, gpudata=maps.pointer)` after `maps.synchronize()`.

    Attributes
    ----------
    pointer : address on the GPU, valid as long as this object or what was made of it lives.
    shape, dtype : as numpy has them.
    device_index : of the GPU.
    ready : the event that it is computed.
    """

    dtype = FLOAT32

    def __init__(self, pointer: int, shape: tuple[int, ...], stream: Stream, owner: object) -> None:
        self.pointer = pointer
        self.shape = shape
        self.device_index = stream.device.index
        self._stream, self._owner = stream, owner
        self.ready = Event(stream.device)
        self.ready.record(stream.address)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": self._stream.address,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device_index

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,  # an earlier one is allowed, and made
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A capsule of this memory; the consumer's `stream` is made to wait for it, -1 leaves that to the caller."""
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(
                "this array is handed out where it lies, without a copy: use numpy() for a copy on the host"
            )
        if stream != -1:
            self.wait_on(LEGACY_STREAM if stream is None else stream)
        return dlpack.make_capsule(self.pointer, self.shape, self.__dlpack_device__(), self)

    def wait_on(self, stream: int) -> None:
        """Let a CUDA stream, given by its handle, wait until the array is computed; returns at once."""
        self.ready.hold(stream)

    def synchronize(self) -> None:
        """Wait until the array is computed; raises TargetError if that failed."""
        self.ready.synchronize()

    def numpy(self) -> FloatArray:
        """A copy on the host, when it is computed."""
        device = self._stream.device
        self.synchronize()
        with device, PinnedArray(device, self.shape) as pinned, Stream(device) as stream:
            stream.copy_to_host(pinned.pointer, self.pointer, pinned.array.nbytes)
            stream.synchronize()
            return pinned.array.copy()

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype=float32, device='cuda:{self.device_index}')"


def take_in(array: object, name: str, stream: Stream, writable: bool = False) -> ForeignArray:
    """Look at somebody's array on the GPU, and let `stream` wait until it is computed.

    Parameters
    ----------
    array : has `__dlpack__` or `__cuda_array_interface__`; float32 and C-contiguous, on the GPU of `stream`.
    name : for error messages.
    stream : where it will be used. Producers that speak neither of streams must have finished it.
    writable : whether it will be written to.

    Raises
    ------
    UsageError
        If it is no such array; the message says what it is, and how to make it one.
    """
    if hasattr(array, "__dlpack_device__"):
        return _by_dlpack(array, name, stream)
    if isinstance(interface := getattr(array, "__cuda_array_interface__", None), Mapping):
        return _by_interface(array, interface, name, stream, writable)
    raise UsageError(
        f"{name}: a {type(array).__name__} is no array on a GPU (it has neither __dlpack__ nor "
        "__cuda_array_interface__): pass a tensor of PyTorch, CuPy or PyCUDA"
    )


def take_out(array: object, name: str, stream: Stream, shape: tuple[int, ...]) -> ForeignArray:
    """The same for an array that will be written to, and must have a certain shape."""
    found = take_in(array, name, stream, writable=True)
    if found.shape != shape:
        raise UsageError(f"{name}: its shape is {found.shape}, it must be {shape}")
    return found


def check_apart(first: ForeignArray, first_name: str, second: ForeignArray, second_name: str) -> None:
    """Raise UsageError where two arrays share memory: what is written to one would change the other on the way."""
    if first.pointer < second.end and second.pointer < first.end:
        raise UsageError(f"{second_name}: it overlaps {first_name} in memory: pass memory of its own")


def _by_dlpack(array: Any, name: str, stream: Stream) -> ForeignArray:
    index = stream.device.index
    kind, where = (int(value) for value in array.__dlpack_device__())
    if kind not in (dlpack.CUDA, dlpack.CUDA_MANAGED):
        raise UsageError(
            f"{name}: a {type(array).__name__} not on a GPU: move it to cuda:{index}, or give photos to `detect`"
        )
    if where != index:
        raise _elsewhere(name, where, index)
    try:
        capsule = array.__dlpack__(stream=stream.address)
        view = dlpack.read_capsule(capsule)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:  # such as a tensor that requires grad
        raise UsageError(f"{name}: a {type(array).__name__} cannot be shared: {one_line(error)}") from error
    if view.dtype != (dlpack.FLOAT, FLOAT32.itemsize * 8, 1):
        raise UsageError(f"{name}: its elements are not float32: convert it, with `.float()` or `.astype`")
    if view.strides is not None:
        _check_contiguous(name, view.shape, tuple(step * FLOAT32.itemsize for step in view.strides))
    _check_place(view.pointer, name, stream.device)
    return ForeignArray(view.pointer, view.shape, (array, capsule))


def _by_interface(
    array: object, interface: Mapping[str, Any], name: str, stream: Stream, writable: bool
) -> ForeignArray:
    try:
        shape = tuple(int(length) for length in interface["shape"])
        pointer, is_read_only = int(interface["data"][0]), bool(interface["data"][1])
        kind = np.dtype(interface["typestr"])
        strides, producer = interface.get("strides"), interface.get("stream")
        strides = None if strides is None else tuple(int(step) for step in strides)
        if strides is not None and len(strides) != len(shape):
            raise ValueError(f"{len(strides)} strides of {len(shape)} axes")
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{name}: the __cuda_array_interface__ of a {type(array).__name__} is damaged: {error!r}"
        ) from error
    if kind != FLOAT32:
        raise UsageError(f"{name}: its elements are {kind}, not float32: convert it with `.astype`")
    if interface.get("mask") is not None:
        raise UsageError(f"{name}: masked arrays are not taken: fill it first")
    if writable and is_read_only:
        raise UsageError(f"{name}: it is read-only: pass an array that may be written")
    if strides is not None:
        _check_contiguous(name, shape, strides)
    _check_place(pointer, name, stream.device)
    if producer is not None:
        if producer == 0:
            raise UsageError(f"{name}: its __cuda_array_interface__ names stream 0, which that protocol forbids")
        with Event(stream.device) as computed:
            computed.record(producer)
            computed.hold(stream.address)
    return ForeignArray(pointer, shape, array)


def _check_contiguous(name: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Refuse strides, in bytes, that are not C's; those along an axis of length 1 mean nothing."""
    step = FLOAT32.itemsize
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length > 1 and stride != step:
            raise UsageError(
                f"{name}: it is not C-contiguous (strides {strides} bytes): make it so, as by `.contiguous()`"
            )
        step *= length


def _check_place(pointer: int, name: str, device: Device) -> None:
    """Refuse memory of another GPU or context, which would fail later and take the whole context with it."""
    with device:
        where, context = device.attribute("DEVICE_ORDINAL", pointer), device.attribute("CONTEXT", pointer)
    if where is None:
        raise UsageError(f"{name}: its address {pointer:#x} is no memory of a GPU: was it freed?")
    if where != device.index:
        raise _elsewhere(name, where, device.index)
    if context and context != int(device.context):  # memory of pools belongs to no context
        raise UsageError(
            f"{name}: it lies in a CUDA context of its own: share the primary context, "
            "in PyCUDA by `import pycuda.autoprimaryctx` in place of `pycuda.autoinit`"
        )


def _elsewhere(name: str, where: int, index: int) -> UsageError:
    return UsageError(
        f"{name}: it lies on cuda:{where}, the engine runs on cuda:{index}: move it, or load with device='cuda:{where}'"
    )
