"""Arrays of callers on the host, looked at where they lie: numpy's, anybody's with DLPack, and bare addresses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gconet.runtime import dlpack
from gconet.runtime.errors import UsageError, one_line
from gconet.runtime.preprocess import FloatArray

FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class HostBuffer:
    """C-contiguous float32 memory of the host by its address, as from C, a pool, or memory shared by processes.

    Its owner keeps it valid for as long as this object is used: nothing here can tell whether it is.

    Attributes
    ----------
    address : of the first element, a multiple of 4.
    shape : of the array there.
    read_only : whether it must not be written to.

    Raises
    ------
    UsageError
        If the address is null.
    """

    address: int
    shape: tuple[int, ...]
    read_only: bool = False

    def __post_init__(self) -> None:
        if self.address < 1:
            raise UsageError(f"address {self.address} is no memory: pass that of an array")

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": FLOAT32.str, "data": (self.address, self.read_only), "version": 3}


@dataclass(frozen=True)
class HostView:
    """Somebody's memory as a numpy array, and what keeps it alive; neither is kept after the call it was made for."""

    array: FloatArray
    owner: object


def take_in(array: object, name: str, shape: tuple[int | None, ...]) -> HostView:
    """Look at somebody's array on the host, without a copy.

    Parameters
    ----------
    array : a numpy array, or anything with `__array_interface__`, such as a `HostBuffer`, or with DLPack.
    name : for error messages.
    shape : it must have; None is any length of at least 1.

    Raises
    ------
    UsageError
        If it is no aligned, C-contiguous float32 array of that shape on the host; the message says what it is, and how
        to make it one.
    """
    view = _look_at(array, name)
    values = view.array
    if isinstance(values, np.ma.MaskedArray):
        raise UsageError(f"{name}: masked arrays are not taken: fill it first")
    if values.dtype != FLOAT32:
        raise UsageError(f"{name}: its elements are {values.dtype}, not float32: convert it, `.astype(np.float32)`")
    if len(values.shape) != len(shape) or any(
        length < 1 if wanted is None else length != wanted for length, wanted in zip(values.shape, shape, strict=True)
    ):
        wanted = ", ".join("N" if length is None else str(length) for length in shape)
        raise UsageError(f"{name}: its shape is {values.shape}, it must be ({wanted}{',' * (len(shape) == 1)})")
    if not values.flags.c_contiguous:
        raise UsageError(
            f"{name}: it is not C-contiguous (strides {values.strides} bytes): pass np.ascontiguousarray of it"
        )
    if not values.flags.aligned:
        raise UsageError(f"{name}: its address {address(values):#x} is no multiple of {FLOAT32.itemsize}: align it")
    return view


def take_out(array: object, name: str, shape: tuple[int, ...]) -> HostView:
    """The same for an array that will be written to."""
    view = take_in(array, name, shape)
    if not view.array.flags.writeable:
        raise UsageError(f"{name}: it is read-only: pass an array that may be written")
    return view


def check_apart(first: HostView, first_name: str, second: HostView, second_name: str) -> None:
    """Raise UsageError where two arrays share memory: what is written to one would change the other on the way."""
    if np.may_share_memory(first.array, second.array):  # which is exact, as both are contiguous
        raise UsageError(f"{second_name}: it overlaps {first_name} in memory: pass memory of its own")


def check_finite(view: HostView, name: str) -> None:
    """Raise UsageError for NaN and infinities, which would go through the whole group; needs no memory."""
    if not (math.isfinite(view.array.min()) and math.isfinite(view.array.max())):  # both pass a NaN on
        raise UsageError(f"{name}: it holds NaN or infinity: look for it with np.isfinite")


def address(array: FloatArray) -> int:
    """Of an array's first element."""
    return int(array.__array_interface__["data"][0])


def unowned(array: FloatArray) -> FloatArray:
    """The same memory without a hold on its owner, for engines that remember what they were given last."""
    return np.asarray(HostBuffer(address(array), array.shape))


def _look_at(array: Any, name: str) -> HostView:
    try:
        if hasattr(array, "__array_interface__"):  # numpy's own have it too
            return HostView(np.asanyarray(array), array)
        if hasattr(array, "__dlpack_device__"):
            return _by_dlpack(array, name)
    except (BufferError, OverflowError, RuntimeError, TypeError, ValueError) as error:  # as of one that requires grad
        raise UsageError(f"{name}: a {type(array).__name__} cannot be shared: {one_line(error)}") from error
    raise UsageError(
        f"{name}: a {type(array).__name__} is no array (it has neither __array_interface__ nor __dlpack__): pass one "
        "of numpy or PyTorch, or a HostBuffer"
    )


def _by_dlpack(array: Any, name: str) -> HostView:
    kind, where = (int(value) for value in array.__dlpack_device__())
    if kind not in (dlpack.CPU, dlpack.CUDA_HOST):
        raise UsageError(
            f"{name}: a {type(array).__name__} not on the host (DLPack's device {kind}:{where}): move it there, or use "
            "detect_on_device"
        )
    capsule = array.__dlpack__()
    tensor = dlpack.read_capsule(capsule)
    if tensor.dtype != (dlpack.FLOAT, FLOAT32.itemsize * 8, 1):
        raise UsageError(f"{name}: its elements are not float32: convert it, with `.float()` or `.astype`")
    values: FloatArray = np.asarray(HostBuffer(tensor.pointer, tensor.shape))
    if tensor.strides is not None:
        values = np.lib.stride_tricks.as_strided(values, strides=[step * FLOAT32.itemsize for step in tensor.strides])
    return HostView(values, (array, capsule))
