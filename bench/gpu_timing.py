"""What a GPU's own clock says of a session: copies and computation apart, with and without a CUDA graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from gconet.bench.timing import WARM_UP_ROUNDS
from gconet.runtime.cuda import Device, DeviceMemory, Event, PinnedArray, Stream
from gconet.runtime.device_arrays import DeviceArray
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import DeviceSession


@dataclass(frozen=True)
class GpuTiming:
    """Medians in milliseconds of one group, between CUDA events.

    Attributes
    ----------
    h2d_ms, d2h_ms : network input to the GPU and maps from it, from and to pinned memory.
    compute_ms, compute_plain_ms : input to maps on the GPU, launched as a CUDA graph and kernel by kernel. ONNX Runtime
        has graphs of the first few group sizes it meets; beyond these both are launched alike.
    enqueue_ms, enqueue_plain_ms : what the CPU needs to launch the same.
    """

    h2d_ms: float
    compute_ms: float
    d2h_ms: float
    enqueue_ms: float
    compute_plain_ms: float
    enqueue_plain_ms: float


def time_gpu(device: Device, graphs: DeviceSession, plain: DeviceSession, images: FloatArray, rounds: int) -> GpuTiming:
    """Time one group (N, 3, S, S).

    Parameters
    ----------
    graphs, plain : two sessions of one bundle on `device`, with CUDA graphs and without.

    Raises
    ------
    TargetError
        If the engine or CUDA fail.
    """
    count, _, *sides = images.shape
    shape = count, 1, *sides
    stream = Stream(device)
    given, taken = PinnedArray(device, images.shape), PinnedArray(device, shape)
    np.copyto(given.array, images)
    inputs, outputs = DeviceMemory(device, given.array.nbytes), DeviceMemory(device, taken.array.nbytes)
    copies = {
        "h2d": partial(stream.copy_to_device, inputs.pointer, given.pointer, given.array.nbytes),
        "d2h": partial(stream.copy_to_host, taken.pointer, outputs.pointer, taken.array.nbytes),
    }
    with device:
        copy_ms = {name: _time_copies(device, stream, copy, rounds) for name, copy in copies.items()}
        on_gpu = DeviceArray(inputs.pointer, images.shape, stream, inputs)
        maps = DeviceArray(outputs.pointer, shape, stream, outputs)
        computed, enqueued = _time_session(device, graphs, on_gpu, maps, rounds)
        plainly_computed, plainly_enqueued = _time_session(device, plain, on_gpu, maps, rounds)
    return GpuTiming(
        h2d_ms=copy_ms["h2d"],
        compute_ms=computed,
        d2h_ms=copy_ms["d2h"],
        enqueue_ms=enqueued,
        compute_plain_ms=plainly_computed,
        enqueue_plain_ms=plainly_enqueued,
    )


def _time_copies(device: Device, stream: Stream, copy: Callable[[], object], rounds: int) -> float:
    start, end = Event(device, timed=True), Event(device, timed=True)
    samples = []
    for _ in range(WARM_UP_ROUNDS + rounds):
        start.record(stream.address)
        copy()
        end.record(stream.address)
        end.synchronize()
        samples.append(end.elapsed_ms(start))
    return float(np.median(samples[WARM_UP_ROUNDS:]))


def _time_session(
    device: Device, session: DeviceSession, images: DeviceArray, maps: DeviceArray, rounds: int
) -> tuple[float, float]:
    """Medians of computing and of launching, in milliseconds."""
    start, end = Event(device, timed=True), Event(device, timed=True)
    address = session.infer_device({"images": images}, {"maps": maps})["maps"].__cuda_array_interface__["stream"]
    computed, enqueued = [], []
    for _ in range(WARM_UP_ROUNDS + rounds):
        start.record(address)
        before = time.perf_counter_ns()
        session.infer_device({"images": images}, {"maps": maps})
        enqueued.append((time.perf_counter_ns() - before) / 1e6)
        end.record(address)
        end.synchronize()
        computed.append(end.elapsed_ms(start))
    return float(np.median(computed[WARM_UP_ROUNDS:])), float(np.median(enqueued[WARM_UP_ROUNDS:]))
