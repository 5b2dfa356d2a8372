"""Arrays on an imaginary GPU, handed out by both protocols, and how long their memory lives."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeDriver

from gconet.runtime import dlpack
from gconet.runtime.cuda import DeviceMemory, Stream
from gconet.runtime.device_arrays import DeviceArray


@pytest.fixture
def late(two_gpus: FakeDriver, gpu_stream: Stream, gpu_values: Any) -> DeviceArray:
    """An array that the GPU has yet to compute."""
    memory = DeviceMemory(gpu_stream.device, gpu_values.nbytes)
    two_gpus.streams[gpu_stream.address].append(
        lambda: np.copyto(two_gpus.tensor(memory.pointer, gpu_values.shape), gpu_values)
    )
    return DeviceArray(memory.pointer, gpu_values.shape, gpu_stream, memory)


def test_an_output_describes_itself_in_both_protocols(late: DeviceArray, gpu_stream: Stream) -> None:
    assert late.__dlpack_device__() == (dlpack.CUDA, 0)
    assert late.__cuda_array_interface__ == {
        "shape": (2, 3, 4),
        "typestr": "<f4",
        "data": (late.pointer, False),
        "strides": None,
        "stream": gpu_stream.address,
        "version": 3,
    }
    view = dlpack.read_capsule(late.__dlpack__(stream=-1, max_version=(1, 0)))
    assert view == dlpack.TensorView(late.pointer, (2, 3, 4), None, (dlpack.FLOAT, 32, 1), (dlpack.CUDA, 0))
    assert repr(late) == "DeviceArray(shape=(2, 3, 4), dtype=float32, device='cuda:0')"


@pytest.mark.parametrize("consumer", [None, 1, "own"], ids=str)
def test_a_consumers_stream_waits_for_an_output(
    consumer: Any, late: DeviceArray, two_gpus: FakeDriver, gpu_stream: Stream, gpu_values: Any
) -> None:
    other = Stream(gpu_stream.device)
    late.__dlpack__(stream=other.address if consumer == "own" else consumer)
    assert not np.array_equal(two_gpus.tensor(late.pointer, late.shape), gpu_values)
    with gpu_stream.device:
        gpu_stream.device.call("cuStreamSynchronize", other.address if consumer == "own" else 1)
    np.testing.assert_array_equal(two_gpus.tensor(late.pointer, late.shape), gpu_values)


def test_an_output_is_copied_to_the_host_when_it_is_computed(
    late: DeviceArray, two_gpus: FakeDriver, gpu_values: Any
) -> None:
    np.testing.assert_array_equal(late.numpy(), gpu_values)
    assert not two_gpus.pinned


def test_an_output_is_not_copied_unasked(late: DeviceArray) -> None:
    with pytest.raises(BufferError, match=r"numpy\(\)"):
        late.__dlpack__(copy=True)
    with pytest.raises(BufferError, match=r"numpy\(\)"):
        late.__dlpack__(dl_device=(dlpack.CPU, 0))


def test_an_outputs_memory_lives_as_long_as_what_was_made_of_it(two_gpus: FakeDriver, gpu_stream: Stream) -> None:
    memory = DeviceMemory(gpu_stream.device, 64)
    output = DeviceArray(memory.pointer, (16,), gpu_stream, memory)
    pointer, capsule = memory.pointer, output.__dlpack__()
    del memory, output
    gc.collect()
    assert pointer in two_gpus.memory
    del capsule
    gc.collect()
    assert pointer not in two_gpus.memory
    assert not two_gpus.events
