"""Arrays on the GPU, taken in: both protocols against numpy, PyTorch and an imaginary GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import FakeArray, FakeDriver

from gconet.runtime import dlpack
from gconet.runtime.cuda import Device, Stream
from gconet.runtime.device_arrays import ForeignArray, check_apart, take_in, take_out
from gconet.runtime.errors import UsageError


class Producer:
    """An array with DLPack only, whose capsule and device can be anything."""

    def __init__(self, capsule: Any, device: tuple[int, int] = (dlpack.CUDA, 0)) -> None:
        self.capsule, self.device = capsule, device
        self.asked_for: object = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int) -> Any:
        self.asked_for = stream
        return self.capsule


def test_an_array_with_the_cuda_interface_is_taken_where_it_lies(
    two_gpus: FakeDriver, gpu_stream: Stream, gpu_values: Any
) -> None:
    array = FakeArray(two_gpus, gpu_values)
    found = take_in(array, "images", gpu_stream)
    assert (found.pointer, found.shape) == (array.pointer, (2, 3, 4))
    assert found.owner is array
    np.testing.assert_array_equal(two_gpus.tensor(found.pointer, found.shape), gpu_values)


def test_an_array_with_dlpack_is_taken_where_it_lies(two_gpus: FakeDriver, gpu_stream: Stream, gpu_values: Any) -> None:
    pointer = two_gpus.upload(gpu_values)
    producer = Producer(dlpack.make_capsule(pointer, gpu_values.shape, (dlpack.CUDA, 0), None))
    found = take_in(producer, "images", gpu_stream)
    assert (found.pointer, found.shape) == (pointer, (2, 3, 4))
    assert producer.asked_for == gpu_stream.address  # whose further work the producer lets wait


def test_the_stream_waits_for_the_producers(two_gpus: FakeDriver, gpu_stream: Stream, gpu_values: Any) -> None:
    producer = Stream(gpu_stream.device)
    array = FakeArray(two_gpus, gpu_values, stream=producer.address)
    two_gpus.streams[producer.address].append(lambda: two_gpus.tensor(array.pointer, (1,)).fill(42))
    take_in(array, "images", gpu_stream)
    assert array.read()[0, 0, 0] != 42
    with gpu_stream.device:
        gpu_stream.synchronize()
    assert array.read()[0, 0, 0] == 42
    assert len(two_gpus.events) == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"typestr": "<f2"}, "elements are float16, not float32"),
        ({"typestr": ">f4"}, "not float32"),
        ({"strides": (4, 8, 24)}, r"not C-contiguous \(strides \(4, 8, 24\) bytes\)"),
        ({"mask": b"a mask"}, "masked"),
        ({"strides": (4,)}, "damaged"),
        ({"strides": 4}, "damaged"),
        ({"stream": 0}, "stream 0"),
        ({"data": None}, "damaged"),
        ({"shape": "wide"}, "damaged"),
        ({"data": (12345, False)}, "0x3039 is no memory of a GPU"),
    ],
    ids=str,
)
def test_a_cuda_interface_that_cannot_be_used_is_one_line(
    changes: dict[str, Any], complaint: str, two_gpus: FakeDriver, gpu_stream: Stream, gpu_values: Any
) -> None:
    with pytest.raises(UsageError, match=f"^images: .*{complaint}") as caught:
        take_in(FakeArray(two_gpus, gpu_values, **changes), "images", gpu_stream)
    assert "\n" not in str(caught.value)


def test_strides_that_say_c_contiguous_are_taken(two_gpus: FakeDriver, gpu_stream: Stream, gpu_values: Any) -> None:
    assert take_in(FakeArray(two_gpus, gpu_values, strides=(48, 16, 4)), "images", gpu_stream).shape == (2, 3, 4)
    one = FakeArray(two_gpus, gpu_values[:1], strides=(9999, 16, 4))  # no step is ever taken along the first axis
    assert take_in(one, "images", gpu_stream).shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("tensor", "complaint"),
    [
        (torch.zeros(2, 3, dtype=torch.float16), "not float32"),
        (torch.zeros(2, 3, dtype=torch.int32), "not float32"),
        (torch.zeros(3, 2).T, "not C-contiguous"),
    ],
    ids=["half", "integers", "transposed"],
)
def test_a_capsule_that_cannot_be_used_is_one_line(tensor: torch.Tensor, complaint: str, gpu_stream: Stream) -> None:
    with pytest.raises(UsageError, match=f"^images: .*{complaint}"):
        take_in(Producer(tensor.__dlpack__()), "images", gpu_stream)


def test_a_producer_that_refuses_is_told_in_its_own_words(gpu_stream: Stream) -> None:
    class NeedsGrad(Producer):
        def __dlpack__(self, *, stream: int) -> Any:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()\nand more")

    with pytest.raises(UsageError, match=r"^images: a NeedsGrad cannot be shared: .*use tensor\.detach\(\)$"):
        take_in(NeedsGrad(None), "images", gpu_stream)
    with pytest.raises(UsageError, match=r"cannot be shared: .*no capsule"):
        take_in(Producer(None), "images", gpu_stream)


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.float32), torch.zeros(2, 3)], ids=["numpy", "torch"])
def test_an_array_of_the_host_is_refused(array: object, gpu_stream: Stream) -> None:
    with pytest.raises(UsageError, match=r"not on a GPU: move it to cuda:0, or give photos to `detect`"):
        take_in(array, "images", gpu_stream)


@pytest.mark.parametrize("thing", [[[1.0]], 3, None], ids=repr)
def test_what_is_no_array_is_refused(thing: object, gpu_stream: Stream) -> None:
    with pytest.raises(UsageError, match=r"is no array on a GPU .* PyTorch, CuPy or PyCUDA"):
        take_in(thing, "images", gpu_stream)


def test_an_array_of_another_gpu_or_context_is_refused(
    two_gpus: FakeDriver, gpu_stream: Stream, gpu_values: Any
) -> None:
    with pytest.raises(UsageError, match=r"lies on cuda:1, the engine runs on cuda:0.*device='cuda:1'"):
        take_in(Producer(None, (dlpack.CUDA, 1)), "images", gpu_stream)
    array = FakeArray(two_gpus, gpu_values)
    with pytest.raises(UsageError, match=r"lies on cuda:0, the engine runs on cuda:1.*device='cuda:0'"):
        take_in(array, "images", Stream(Device(1)))
    two_gpus.foreign_contexts[array.pointer] = 99
    with pytest.raises(UsageError, match=r"context of its own.*pycuda\.autoprimaryctx"):
        take_in(array, "images", gpu_stream)


def test_an_array_to_write_to_must_be_writable_and_of_the_right_shape(
    two_gpus: FakeDriver, gpu_stream: Stream, gpu_values: Any
) -> None:
    array = FakeArray(two_gpus, gpu_values)
    assert take_out(array, "maps", gpu_stream, (2, 3, 4)).pointer == array.pointer
    with pytest.raises(UsageError, match=r"^maps: its shape is \(2, 3, 4\), it must be \(2, 1, 4\)"):
        take_out(array, "maps", gpu_stream, (2, 1, 4))
    read_only = FakeArray(two_gpus, gpu_values, data=(array.pointer, True))
    assert take_in(read_only, "images", gpu_stream).shape == (2, 3, 4)
    with pytest.raises(UsageError, match="read-only"):
        take_out(read_only, "maps", gpu_stream, (2, 3, 4))


def test_arrays_must_not_overlap() -> None:
    images = ForeignArray(1000, (2, 3, 4), None)  # 96 bytes
    for pointer in (1000 + 96, 1000 - 8):
        check_apart(images, "images", ForeignArray(pointer, (2,), None), "maps")
    for pointer in (1000 + 92, 1000 - 4, 1000):
        with pytest.raises(UsageError, match=r"^maps: it overlaps images in memory: pass memory of its own"):
            check_apart(images, "images", ForeignArray(pointer, (2,), None), "maps")
