"""DLPack capsules, read and made, against numpy and PyTorch."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from gconet.runtime import dlpack


def test_a_capsule_of_torch_is_read_as_torch_describes_it() -> None:
    tensor = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)[1:, :, ::2]
    view = dlpack.read_capsule(tensor.__dlpack__())
    assert view.pointer == tensor.data_ptr()
    assert view.shape == (2, 4, 3)
    assert view.strides == (20, 5, 2)
    assert view.dtype == (dlpack.FLOAT, 32, 1)
    assert view.device == (dlpack.CPU, 0)
    assert dlpack.read_capsule(tensor.half().__dlpack__()).dtype == (dlpack.FLOAT, 16, 1)
    assert dlpack.read_capsule(np.arange(6).__dlpack__()).dtype == (0, 64, 1)


def test_a_capsule_that_is_read_keeps_its_tensor_and_gives_it_back() -> None:
    array = np.ones(4, np.float32)
    gone = weakref.ref(array)
    capsule = array.__dlpack__()
    del array
    dlpack.read_capsule(capsule)
    gc.collect()
    assert gone() is not None
    del capsule
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("thing", [None, 7, object()], ids=["None", "7", "object"])
def test_what_is_no_capsule_is_refused(thing: object) -> None:
    with pytest.raises(ValueError, match="no capsule"):
        dlpack.read_capsule(thing)


@pytest.mark.parametrize("consumer", [torch.from_dlpack, np.from_dlpack], ids=["torch", "numpy"])
def test_a_capsule_made_here_is_taken_over_without_a_copy_and_let_go_of(consumer: Any) -> None:
    class Owner:
        memory = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

        def __dlpack_device__(self) -> tuple[int, int]:
            return dlpack.CPU, 0

        def __dlpack__(self, **_: Any) -> object:
            return dlpack.make_capsule(self.memory.ctypes.data, self.memory.shape, self.__dlpack_device__(), self)

    owner = Owner()
    gone = weakref.ref(owner)
    taken = consumer(owner)
    unclaimed = owner.__dlpack__()
    del owner
    assert np.array_equal(taken, Owner.memory)
    Owner.memory[1, 2, 3] = -1  # the same memory, not a copy
    assert taken[1, 2, 3] == -1
    gc.collect()
    assert gone() is not None
    del taken, unclaimed
    gc.collect()
    assert gone() is None


def test_a_consumer_that_refuses_a_capsule_says_why_and_lets_go_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    """It drops the capsule with its exception on the way, in the middle of which what frees it is called."""

    class Owner:
        pass

    owner = Owner()
    gone = weakref.ref(owner)

    class OnGpu:
        def __init__(self, owner: Owner) -> None:
            self.owner = owner

        def __dlpack_device__(self) -> tuple[int, int]:
            return dlpack.CUDA, 0

        def __dlpack__(self, **_: Any) -> object:
            return dlpack.make_capsule(4096, (2, 3), self.__dlpack_device__(), self.owner)

    array = OnGpu(owner)
    del owner
    with pytest.raises((RuntimeError, BufferError), match=r"(?i)device"):
        np.from_dlpack(array)
    del array
    gc.collect()
    assert gone() is None
    assert capfd.readouterr().err == ""
