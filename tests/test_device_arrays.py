"""Arrays on the GPU in and out: both protocols against numpy, PyTorch and an imaginary GPU."""

from __future__ import annotations

import gc
import inspect
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import FakeArray, FakeDriver

from gconet.runtime import cuda, dlpack
from gconet.runtime.cuda import Device, DeviceMemory, PinnedArray, Stream
from gconet.runtime.device_arrays import DeviceArray, take_in, take_out
from gconet.runtime.errors import TargetError, UsageError


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """Two imaginary GPUs in place of what this machine has."""
    fake = FakeDriver(devices=2)
    monkeypatch.setattr(cuda, "load_driver", lambda: fake)
    return fake


@pytest.fixture
def stream(driver: FakeDriver) -> Stream:  # noqa: ARG001 (must be there first)
    """A stream of the first GPU."""
    return Stream(Device(0))


@pytest.fixture
def values(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    return rng.standard_normal((2, 3, 4), np.float32)


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


# DLPack itself


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


@pytest.mark.parametrize("thing", [None, 7, object()], ids=repr)
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


# In


def test_an_array_with_the_cuda_interface_is_taken_where_it_lies(
    driver: FakeDriver, stream: Stream, values: Any
) -> None:
    array = FakeArray(driver, values)
    found = take_in(array, "images", stream)
    assert (found.pointer, found.shape) == (array.pointer, (2, 3, 4))
    assert found.owner is array
    np.testing.assert_array_equal(driver.tensor(found.pointer, found.shape), values)


def test_an_array_with_dlpack_is_taken_where_it_lies(driver: FakeDriver, stream: Stream, values: Any) -> None:
    pointer = driver.upload(values)
    producer = Producer(dlpack.make_capsule(pointer, values.shape, (dlpack.CUDA, 0), None))
    found = take_in(producer, "images", stream)
    assert (found.pointer, found.shape) == (pointer, (2, 3, 4))
    assert producer.asked_for == stream.address  # whose further work the producer lets wait


def test_the_stream_waits_for_the_producers(driver: FakeDriver, stream: Stream, values: Any) -> None:
    producer = Stream(stream.device)
    array = FakeArray(driver, values, stream=producer.address)
    driver.streams[producer.address].append(lambda: driver.tensor(array.pointer, (1,)).fill(42))
    take_in(array, "images", stream)
    assert array.read()[0, 0, 0] != 42
    with stream.device:
        stream.synchronize()
    assert array.read()[0, 0, 0] == 42
    assert len(driver.events) == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"typestr": "<f2"}, "elements are float16, not float32"),
        ({"typestr": ">f4"}, "not float32"),
        ({"strides": (4, 8, 24)}, r"not C-contiguous \(strides \(4, 8, 24\) bytes\)"),
        ({"mask": object()}, "masked"),
        ({"stream": 0}, "stream 0"),
        ({"data": None}, "damaged"),
        ({"shape": "wide"}, "damaged"),
        ({"data": (12345, False)}, "0x3039 is no memory of a GPU"),
    ],
    ids=str,
)
def test_a_cuda_interface_that_cannot_be_used_is_one_line(
    changes: dict[str, Any], complaint: str, driver: FakeDriver, stream: Stream, values: Any
) -> None:
    with pytest.raises(UsageError, match=f"^images: .*{complaint}") as caught:
        take_in(FakeArray(driver, values, **changes), "images", stream)
    assert "\n" not in str(caught.value)


def test_strides_that_say_c_contiguous_are_taken(driver: FakeDriver, stream: Stream, values: Any) -> None:
    assert take_in(FakeArray(driver, values, strides=(48, 16, 4)), "images", stream).shape == (2, 3, 4)
    one = FakeArray(driver, values[:1], strides=(9999, 16, 4))  # no step is ever taken along the first axis
    assert take_in(one, "images", stream).shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("tensor", "complaint"),
    [
        (torch.zeros(2, 3, dtype=torch.float16), "not float32"),
        (torch.zeros(2, 3, dtype=torch.int32), "not float32"),
        (torch.zeros(3, 2).T, "not C-contiguous"),
    ],
    ids=["half", "integers", "transposed"],
)
def test_a_capsule_that_cannot_be_used_is_one_line(tensor: torch.Tensor, complaint: str, stream: Stream) -> None:
    with pytest.raises(UsageError, match=f"^images: .*{complaint}"):
        take_in(Producer(tensor.__dlpack__()), "images", stream)


def test_a_producer_that_refuses_is_told_in_its_own_words(stream: Stream) -> None:
    class NeedsGrad(Producer):
        def __dlpack__(self, *, stream: int) -> Any:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()\nand more")

    with pytest.raises(UsageError, match=r"^images: a NeedsGrad cannot be shared: .*use tensor\.detach\(\)$"):
        take_in(NeedsGrad(None), "images", stream)
    with pytest.raises(UsageError, match=r"cannot be shared: .*no capsule"):
        take_in(Producer(None), "images", stream)


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.float32), torch.zeros(2, 3)], ids=["numpy", "torch"])
def test_an_array_of_the_host_is_refused(array: object, stream: Stream) -> None:
    with pytest.raises(UsageError, match=r"not on a GPU: move it to cuda:0, or give photos to `detect`"):
        take_in(array, "images", stream)


@pytest.mark.parametrize("thing", [[[1.0]], 3, None], ids=repr)
def test_what_is_no_array_is_refused(thing: object, stream: Stream) -> None:
    with pytest.raises(UsageError, match=r"is no array on a GPU .* PyTorch, CuPy or PyCUDA"):
        take_in(thing, "images", stream)


def test_an_array_of_another_gpu_or_context_is_refused(driver: FakeDriver, stream: Stream, values: Any) -> None:
    with pytest.raises(UsageError, match=r"lies on cuda:1, the engine runs on cuda:0.*device='cuda:1'"):
        take_in(Producer(None, (dlpack.CUDA, 1)), "images", stream)
    array = FakeArray(driver, values)
    with pytest.raises(UsageError, match=r"lies on cuda:0, the engine runs on cuda:1.*device='cuda:0'"):
        take_in(array, "images", Stream(Device(1)))
    driver.foreign_contexts[array.pointer] = 99
    with pytest.raises(UsageError, match=r"context of its own.*pycuda\.autoprimaryctx"):
        take_in(array, "images", stream)


def test_an_array_to_write_to_must_be_writable_and_of_the_right_shape(
    driver: FakeDriver, stream: Stream, values: Any
) -> None:
    array = FakeArray(driver, values)
    assert take_out(array, "maps", stream, (2, 3, 4)).pointer == array.pointer
    with pytest.raises(UsageError, match=r"^maps: its shape is \(2, 3, 4\), it must be \(2, 1, 4\)"):
        take_out(array, "maps", stream, (2, 1, 4))
    read_only = FakeArray(driver, values, data=(array.pointer, True))
    assert take_in(read_only, "images", stream).shape == (2, 3, 4)
    with pytest.raises(UsageError, match="read-only"):
        take_out(read_only, "maps", stream, (2, 3, 4))


# Out


@pytest.fixture
def late(driver: FakeDriver, stream: Stream, values: Any) -> DeviceArray:
    """An array that the GPU has yet to compute."""
    memory = DeviceMemory(stream.device, values.nbytes)
    driver.streams[stream.address].append(lambda: np.copyto(driver.tensor(memory.pointer, values.shape), values))
    return DeviceArray(memory.pointer, values.shape, stream, memory)


def test_an_output_describes_itself_in_both_protocols(late: DeviceArray, stream: Stream) -> None:
    assert late.__dlpack_device__() == (dlpack.CUDA, 0)
    assert late.__cuda_array_interface__ == {
        "shape": (2, 3, 4),
        "typestr": "<f4",
        "data": (late.pointer, False),
        "strides": None,
        "stream": stream.address,
        "version": 3,
    }
    view = dlpack.read_capsule(late.__dlpack__(stream=-1, max_version=(1, 0)))
    assert view == dlpack.TensorView(late.pointer, (2, 3, 4), None, (dlpack.FLOAT, 32, 1), (dlpack.CUDA, 0))
    assert repr(late) == "DeviceArray(shape=(2, 3, 4), dtype=float32, device='cuda:0')"


@pytest.mark.parametrize("consumer", [None, 1, "own"], ids=str)
def test_a_consumers_stream_waits_for_an_output(
    consumer: Any, late: DeviceArray, driver: FakeDriver, stream: Stream, values: Any
) -> None:
    other = Stream(stream.device)
    late.__dlpack__(stream=other.address if consumer == "own" else consumer)
    assert not np.array_equal(driver.tensor(late.pointer, late.shape), values)
    with stream.device:
        stream.device.call("cuStreamSynchronize", other.address if consumer == "own" else 1)
    np.testing.assert_array_equal(driver.tensor(late.pointer, late.shape), values)


def test_an_output_is_copied_to_the_host_when_it_is_computed(
    late: DeviceArray, driver: FakeDriver, values: Any
) -> None:
    np.testing.assert_array_equal(late.numpy(), values)
    assert not driver.pinned


def test_an_output_is_not_copied_unasked(late: DeviceArray) -> None:
    with pytest.raises(BufferError, match=r"numpy\(\)"):
        late.__dlpack__(copy=True)
    with pytest.raises(BufferError, match=r"numpy\(\)"):
        late.__dlpack__(dl_device=(dlpack.CPU, 0))


def test_an_outputs_memory_lives_as_long_as_what_was_made_of_it(driver: FakeDriver, stream: Stream) -> None:
    memory = DeviceMemory(stream.device, 64)
    output = DeviceArray(memory.pointer, (16,), stream, memory)
    pointer, capsule = memory.pointer, output.__dlpack__()
    del memory, output
    gc.collect()
    assert pointer in driver.memory
    del capsule
    gc.collect()
    assert pointer not in driver.memory
    assert not driver.events


# The driver


def test_everything_is_freed_with_its_object(driver: FakeDriver) -> None:
    device = Device(0)
    with DeviceMemory(device, 8), PinnedArray(device, (2, 2)) as pinned, Stream(device) as stream:
        pinned.array[...] = 3
        assert (len(driver.memory), len(driver.pinned), len(driver.streams)) == (1, 1, 2)
        with device, stream.capture(lambda: None) as graph:
            graph.launch(stream)
        assert len(driver.graphs) == len(driver.executables) == 0
        stream.close()  # twice is once
    assert (len(driver.memory), len(driver.pinned), len(driver.streams)) == (0, 0, 1)
    assert driver.contexts() == []


def test_a_capture_that_fails_leaves_the_stream_as_it_was(driver: FakeDriver) -> None:
    device = Device(0)
    stream = Stream(device)

    def fail() -> None:
        raise TargetError("no")

    with device:
        with pytest.raises(TargetError, match="no"):
            stream.capture(fail)
        stream.synchronize()
    assert not driver.graphs


def test_every_status_of_the_driver_is_an_error_with_its_name(driver: FakeDriver) -> None:
    driver.memory_limit = 100
    with pytest.raises(TargetError, match=r"cuMemAlloc on GPU 0 \(Imaginary 0\) gives CUDA_ERROR_OUT_OF_MEMORY"):
        DeviceMemory(Device(0), 101)
    with pytest.raises(TargetError, match=r"no GPU 2 on this machine, 2 can be seen"):
        Device(2)


def test_a_machine_without_a_driver_is_told_in_one_line(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(flags: int) -> None:  # noqa: ARG001
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(driver, "cuInit", missing, raising=False)
    with pytest.raises(TargetError, match=r"no NVIDIA driver \(libcuda\).*nvidia\.com/drivers"):
        Device(0)


def test_the_imaginary_driver_has_the_real_ones_functions() -> None:
    """So that what passes here is called as cuda-python has it."""
    real = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-python: pip install cuda-bindings")
    functions = [name for name in vars(FakeDriver) if name.startswith("cu")]
    assert len(functions) > 25
    for name in functions:
        expected = list(inspect.signature(getattr(real, name)).parameters)
        assert list(inspect.signature(getattr(FakeDriver, name)).parameters)[1:] == expected, name
    for enumeration in ("CUdevice_attribute", "CUpointer_attribute", "CUevent_flags", "CUstream_flags", "CUresult"):
        for member in getattr(FakeDriver, enumeration):
            assert int(getattr(getattr(real, enumeration), member.name)) == member, member
    (mode,) = FakeDriver.CUstreamCaptureMode
    assert getattr(real.CUstreamCaptureMode, mode.name) == mode
