"""DLPack capsules, read and made: the structures of dlpack.h before version 1.0, which all libraries take.

A capsule that is read here is left unclaimed: it owns its tensor, and gives it back when the capsule is collected.
"""

from __future__ import annotations

import ctypes
from ctypes import pythonapi
from dataclasses import dataclass
from typing import Any

import numpy as np

NAME = b"dltensor"
CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13  # DLDeviceType; CUDA_HOST is pinned memory of the host
FLOAT = 2  # DLDataTypeCode


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # null if C-contiguous
        ("byte_offset", ctypes.c_uint64),
    )


class _ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", pythonapi))
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", pythonapi)
)


@dataclass(frozen=True)
class TensorView:
    """What a capsule holds.

    Attributes
    ----------
    pointer : address of the first element.
    shape : of any rank.
    strides : in elements.
    dtype : (code, bits, lanes) as dlpack.h has them; float32 is (2, 32, 1).
    device : (type, index).
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: tuple[int, int, int]
    device: tuple[int, int]


def read_capsule(capsule: Any) -> TensorView:
    """Look into a capsule, which must be kept for as long as the memory is used; raises ValueError if it is none."""
    if not _is_valid(capsule, NAME):
        raise ValueError("its __dlpack__ returned no capsule of an unversioned DLPack tensor")
    tensor = _tensor_in(capsule)
    rank = range(tensor.ndim)
    return TensorView(
        (tensor.data or 0) + tensor.byte_offset,
        tuple(tensor.shape[axis] for axis in rank),
        tuple(tensor.strides[axis] for axis in rank) if tensor.strides else None,
        (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes),
        (tensor.device.type, tensor.device.index),
    )


class _Lent:
    """Memory for numpy to describe, and whose it is."""

    def __init__(self, pointer: int, shape: tuple[int, ...], owner: object) -> None:
        self.__array_interface__ = {"shape": shape, "typestr": "<f4", "data": (pointer, False), "version": 3}
        self.owner = owner


def make_capsule(pointer: int, shape: tuple[int, ...], device: tuple[int, int], owner: object) -> object:
    """A capsule of C-contiguous float32 memory that keeps `owner` alive until its consumer is done with it.

    numpy makes it, of an array that never looks at its memory: what frees it is then C, which a consumer may call while
    an exception of its own is on the way, without the GIL, or after the interpreter's end. A function of ctypes fails
    there. Only the device is ours.
    """
    capsule: object = np.asarray(_Lent(pointer, shape, owner)).__dlpack__()
    tensor = _tensor_in(capsule)
    tensor.device = _Device(*device)
    tensor.strides = None  # as C-contiguous ones may be
    return capsule


def _tensor_in(capsule: Any) -> _Tensor:
    managed = _ManagedTensor.from_address(_get_pointer(capsule, NAME))
    return managed.tensor
