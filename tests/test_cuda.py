"""CUDA through cuda-python, against an imaginary driver, and that against the real one's interface."""

from __future__ import annotations

import inspect

import pytest
from fake_cuda import FakeDriver

from gconet.runtime.cuda import Device, DeviceMemory, PinnedArray, Stream
from gconet.runtime.errors import TargetError


def test_everything_is_freed_with_its_object(two_gpus: FakeDriver) -> None:
    device = Device(0)
    with DeviceMemory(device, 8), PinnedArray(device, (2, 2)) as pinned, Stream(device) as stream:
        pinned.array[...] = 3
        assert (len(two_gpus.memory), len(two_gpus.pinned), len(two_gpus.streams)) == (1, 1, 2)
        with device, stream.capture(lambda: None) as graph:
            graph.launch(stream)
        assert len(two_gpus.graphs) == len(two_gpus.executables) == 0
        stream.close()  # twice is once
    assert (len(two_gpus.memory), len(two_gpus.pinned), len(two_gpus.streams)) == (0, 0, 1)
    assert two_gpus.contexts() == []


def test_a_capture_that_fails_leaves_the_stream_as_it_was(two_gpus: FakeDriver) -> None:
    device = Device(0)
    stream = Stream(device)

    def fail() -> None:
        raise TargetError("no")

    with device:
        with pytest.raises(TargetError, match="no"):
            stream.capture(fail)
        stream.synchronize()
    assert not two_gpus.graphs


def test_every_status_of_the_driver_is_an_error_with_its_name(two_gpus: FakeDriver) -> None:
    two_gpus.memory_limit = 100
    with pytest.raises(TargetError, match=r"cuMemAlloc on GPU 0 \(Imaginary 0\) gives CUDA_ERROR_OUT_OF_MEMORY"):
        DeviceMemory(Device(0), 101)
    with pytest.raises(TargetError, match=r"no GPU 2 on this machine, 2 can be seen"):
        Device(2)


def test_a_machine_without_a_driver_is_told_in_one_line(two_gpus: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(flags: int) -> None:  # noqa: ARG001
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(two_gpus, "cuInit", missing, raising=False)
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
