"""Maps into the caller's memory: the same answer, no memory of its own, no hold on anything, no GIL."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_SIZE
from imaginary_sessions import SIZE, SessionMaker

import gconet.runtime as gr
from gconet.engines.registry import get_target
from gconet.runtime import dlpack
from gconet.runtime.large_groups import infer_group
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import IntoSession

BundleMaker = Callable[[str, str], Path]
TARGETS = ("onnxruntime", "openvino")
CHANNELS = TINY.encoder_channels[-1]
GIVEN: dict[str, Callable[[FloatArray], Any]] = {
    "numpy": lambda array: array,
    "PyTorch": torch.from_numpy,
    "address": lambda array: gr.HostBuffer(array.ctypes.data, array.shape),
    "dlpack": lambda array: SimpleNamespace(
        __dlpack_device__=lambda: (dlpack.CPU, 0), __dlpack__=array.__dlpack__, kept=array
    ),
}


@pytest.fixture(params=TARGETS)
def detector(request: pytest.FixtureRequest, tiny_bundle: BundleMaker) -> gr.Detector:
    """Of a tiny fp32 bundle of each target."""
    return gr.load(tiny_bundle(request.param, "fp32"), threads=1)


@pytest.fixture
def images(rng: np.random.Generator) -> FloatArray:
    return images_of(2, rng)


def images_of(count: int, rng: np.random.Generator, size: int = TINY_SIZE) -> FloatArray:
    return rng.standard_normal((count, 3, size, size), np.float32)


def room_for(images: FloatArray) -> FloatArray:
    """Memory for the maps, of which nothing may be left."""
    return np.full((len(images), 1, *images.shape[2:]), -7, np.float32)


# The answer


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_maps_are_those_of_the_session_to_the_bit(
    count: int, given: str, detector: gr.Detector, rng: np.random.Generator
) -> None:
    images = images_of(count, rng)
    expected = detector.session.infer({"images": images})["maps"]
    maps = room_for(images)
    assert detector.detect_into(GIVEN[given](images), GIVEN[given](maps)) is None
    np.testing.assert_array_equal(maps, expected)
    assert np.ptp(maps) > 0.01  # the comparison means something


def test_bf16_gives_float32_maps_too(tiny_bundle: BundleMaker, images: FloatArray) -> None:
    if get_target("openvino").preferred_precision() != "bf16":
        pytest.skip("this CPU has no bf16 instructions")
    detector = gr.load(tiny_bundle("openvino", "bf16"), threads=1)
    maps = room_for(images)
    detector.detect_into(images, maps)
    np.testing.assert_array_equal(maps, detector.session.infer({"images": images})["maps"])


@pytest.mark.parametrize("count", [1, 3, 7])
def test_segmenting_gives_what_the_graph_gives_block_by_block(
    count: int, detector: gr.Detector, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gconet.runtime.encoded_group.BLOCK_PIXELS", 3 * TINY_SIZE**2)
    images, consensus = images_of(count, rng), rng.random(CHANNELS, np.float32)
    maps = room_for(images)
    detector.segment_into(images, consensus, maps)
    kernel = consensus.reshape(1, -1, 1, 1)
    expected = detector.session.run("segment", {"images": images, "consensus": kernel})["maps"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5)
    assert np.abs(maps - detector.session.infer({"images": images})["maps"]).max() > 1e-3


def test_a_large_group_is_done_in_blocks(
    detector: gr.Detector, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gconet.runtime.encoded_group.BLOCK_PIXELS", 3 * TINY_SIZE**2)
    monkeypatch.setattr("gconet.runtime.large_groups.ONE_CALL_PIXELS", 4 * TINY_SIZE**2)
    images = images_of(7, rng)
    assert detector.streams(7)
    maps = room_for(images)
    detector.detect_into(images, maps)
    np.testing.assert_array_equal(maps, infer_group(detector.session, detector.bundle.manifest, images))


def test_maps_of_earlier_calls_stay_as_they_are(detector: gr.Detector, rng: np.random.Generator) -> None:
    """What an engine was bound to before, it must not write to again, whichever way it is asked."""
    first, second, third = (images_of(2, rng) for _ in range(3))
    expected = [detector.session.infer({"images": images})["maps"] for images in (first, second, third)]
    maps = [room_for(first), room_for(second)]
    detector.detect_into(first, maps[0])
    detector.detect_into(second, maps[1])
    np.testing.assert_array_equal(detector.session.infer({"images": third})["maps"], expected[2])
    np.testing.assert_array_equal(maps[0], expected[0])
    np.testing.assert_array_equal(maps[1], expected[1])
    first[...] = third  # the same memory with other photos
    detector.detect_into(first, maps[0])
    np.testing.assert_array_equal(maps[0], expected[2])
    np.testing.assert_array_equal(maps[1], expected[1])


def test_eight_threads_each_get_their_own_maps(detector: gr.Detector, rng: np.random.Generator) -> None:
    groups = [images_of(count, rng) for count in (1, 2, 3, 4) for _ in range(6)]
    expected = [detector.session.infer({"images": images})["maps"] for images in groups]
    answers = [room_for(images) for images in groups]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(detector.detect_into, groups * 3, answers * 3))
    for maps, reference in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(maps, reference)


def test_a_plan_writes_to_the_callers_memory_too(make_session: SessionMaker, rng: np.random.Generator) -> None:
    session = make_session()
    bundle = SimpleNamespace(manifest=SimpleNamespace(preprocessing=gr.Preprocessing(SIZE), max_group=12), folder="b")
    detector = gr.Detector(bundle, session)  # type: ignore[arg-type] # what is asked of one
    images = images_of(3, rng, SIZE)
    maps = room_for(images)
    detector.detect_into(images, maps)
    np.testing.assert_array_equal(maps, session.infer({"images": images})["maps"])
    assert isinstance(session, IntoSession)
    with pytest.raises(gr.BundleError, match="has no graph `segment`"):
        session.run_into("segment", {"images": images}, {"maps": maps})
    with pytest.raises(gr.UsageError, match="takes up to 12"):
        detector.detect_into(images_of(13, rng, SIZE), np.empty((13, 1, SIZE, SIZE), np.float32))


def test_a_session_that_only_gives_maps_is_copied_from(detector: gr.Detector, images: FloatArray) -> None:
    inner = detector.session
    watched = gr.Detector(detector.bundle, SimpleNamespace(infer=inner.infer, max_group=None))  # type: ignore[arg-type]
    maps = room_for(images)
    watched.detect_into(images, maps)
    np.testing.assert_array_equal(maps, inner.infer({"images": images})["maps"])


# What is refused

WRONG: dict[str, tuple[Callable[[FloatArray, FloatArray], tuple[Any, Any]], str]] = {
    "double": (lambda i, m: (i.astype(float), m), r"^images: its elements are float64, not float32"),
    "byte order": (lambda i, m: (i, m.astype(">f4")), r"^maps: its elements are >f4, not float32"),
    "half tensor": (lambda i, m: (torch.from_numpy(i).half(), m), r"^images: its elements are not float32"),
    "channels": (lambda i, m: (i[:, :2], m), r"^images: its shape is \(2, 2, 64, 64\), it must be \(N, 3, 64, 64\)"),
    "rank": (lambda i, m: (i[0], m), r"^images: its shape is \(3, 64, 64\)"),
    "no photos": (lambda i, m: (i[:0], m[:0]), r"^images: its shape is \(0, 3, 64, 64\)"),
    "other count": (lambda i, m: (i, m[:1]), r"^maps: its shape is \(1, 1, 64, 64\), it must be \(2, 1, 64, 64\)"),
    "no channel axis": (lambda i, m: (i, m[:, 0]), r"^maps: its shape is \(2, 64, 64\)"),
    "strided": (lambda i, m: (i[:, :, :, ::-1], m), r"^images: it is not C-contiguous \(strides "),
    "strided tensor": (
        lambda i, m: (torch.from_numpy(i).permute(0, 1, 3, 2), m),
        r"^images: it is not C-contiguous \(strides ",
    ),
    "transposed maps": (lambda i, m: (i, m.transpose(0, 1, 3, 2)), r"^maps: it is not C-contiguous"),
    "read-only": (lambda i, m: (i, read_only(m)), r"^maps: it is read-only"),
    "read-only address": (
        lambda i, m: (i, gr.HostBuffer(m.ctypes.data, m.shape, read_only=True)),
        r"^maps: it is read-only",
    ),
    "overlap": (lambda i, _: (i, i.reshape(-1)[: 2 * 64 * 64].reshape(2, 1, 64, 64)), r"^maps: it overlaps images"),
    "unaligned": (lambda i, m: (unaligned(i), m), r"^images: its address 0x[0-9a-f]+ is no multiple of 4"),
    "NaN": (lambda i, m: (with_value(i, np.nan), m), r"^images: it holds NaN or infinity"),
    "infinity": (lambda i, m: (with_value(i, -np.inf), m), r"^images: it holds NaN or infinity"),
    "masked": (lambda i, m: (np.ma.masked_less(i, 0), m), r"^images: masked arrays"),
    "list": (lambda i, m: (i.tolist(), m), r"^images: a list is no array .* HostBuffer$"),
    "none": (lambda i, _: (i, None), r"^maps: a NoneType is no array"),
    "needs grad": (lambda i, m: (torch.from_numpy(i).requires_grad_(), m), r"^images: a Tensor cannot be shared: "),
    "on a GPU": (
        lambda _, m: (SimpleNamespace(__dlpack_device__=lambda: (2, 0)), m),
        r"not on the host .*detect_on_de",
    ),
    "no capsule": (
        lambda _, m: (SimpleNamespace(__dlpack_device__=lambda: (1, 0), __dlpack__=lambda: 3), m),
        r"^images: a SimpleNamespace cannot be shared: its __dlpack__ returned no capsule",
    ),
    "damaged interface": (
        lambda _, m: (SimpleNamespace(__array_interface__={"shape": "wide"}), m),
        r"^images: a SimpleNamespace cannot be shared: ",
    ),
}


def read_only(array: FloatArray) -> FloatArray:
    view = array.view()
    view.flags.writeable = False
    return view


def unaligned(array: FloatArray) -> FloatArray:
    return np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(np.float32).reshape(array.shape)


def with_value(array: FloatArray, value: float) -> FloatArray:
    array[1, 2, 3, 4] = value
    return array


@pytest.mark.parametrize("what", WRONG)
def test_arrays_that_cannot_be_used_are_one_line_that_says_what_is_wrong(
    what: str, tiny_bundle: BundleMaker, images: FloatArray
) -> None:
    detector = gr.load(tiny_bundle("onnxruntime", "fp32"), threads=1)
    spoil, complaint = WRONG[what]
    maps = room_for(images)
    with pytest.raises(gr.UsageError, match=complaint) as caught:
        detector.detect_into(*spoil(images, maps))
    assert "\n" not in str(caught.value)
    assert (maps == -7).all()


@pytest.mark.parametrize(
    ("consensus", "complaint"),
    [
        (np.zeros(CHANNELS + 1, np.float32), r"^consensus: its shape is \(17,\), it must be \(16,\)"),
        (np.zeros(CHANNELS), "^consensus: its elements are float64"),
        (np.full(CHANNELS, np.nan, np.float32), "^consensus: it holds NaN"),
    ],
    ids=["length", "double", "NaN"],
)
def test_a_consensus_that_cannot_be_used_is_refused(
    consensus: Any, complaint: str, detector: gr.Detector, images: FloatArray
) -> None:
    with pytest.raises(gr.UsageError, match=complaint):
        detector.segment_into(images, consensus, room_for(images))


def test_the_null_address_is_refused() -> None:
    with pytest.raises(gr.UsageError, match="address 0 is no memory"):
        gr.HostBuffer(0, (1, 3, 64, 64))


# Memory, and the GIL


def test_no_array_is_held_on_to(detector: gr.Detector, rng: np.random.Generator) -> None:
    images = images_of(2, rng)
    maps = room_for(images)
    left = [weakref.ref(images), weakref.ref(maps)]
    detector.detect_into(images, maps)
    del images, maps
    gc.collect()
    assert not any(array() is not None for array in left)


@pytest.mark.parametrize("given", ["numpy", "address"])
def test_a_call_makes_and_keeps_no_array(given: str, detector: gr.Detector, rng: np.random.Generator) -> None:
    images = images_of(4, rng)
    maps = room_for(images)
    ours = GIVEN[given](images), GIVEN[given](maps)
    for _ in range(20):
        detector.detect_into(*ours)
    gc.collect()
    tracemalloc.start()
    try:
        detector.detect_into(*ours)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(100):
            detector.detect_into(*ours)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The interpreter's own lists of objects to use again fill up on the way, with 256 small ones in the end.
    assert after - before < maps.nbytes / 2
    assert peak - after < maps.nbytes / 8  # objects for the call, but no array


@pytest.mark.slow
def test_ten_thousand_calls_leave_the_process_as_large_as_it_was(
    detector: gr.Detector, rng: np.random.Generator
) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    images = [images_of(1, rng) for _ in range(2)]
    maps = [room_for(array) for array in images]
    expected = [detector.session.infer({"images": array})["maps"] for array in images]
    for turn in range(1000):
        detector.detect_into(images[turn % 2], maps[turn % 2])
    gc.collect()
    before, blocks = resident_bytes(), sys.getallocatedblocks()
    for turn in range(10_000):
        detector.detect_into(images[turn % 2], maps[turn % 2])
    gc.collect()
    assert resident_bytes() - before < 1 << 20  # 100 bytes a call; a map alone is 16 kB
    assert sys.getallocatedblocks() - blocks < 1000  # one in ten calls
    np.testing.assert_array_equal(maps, expected)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_other_threads_run_while_the_engine_works(detector: gr.Detector, rng: np.random.Generator) -> None:
    images = images_of(4, rng)
    maps = room_for(images)
    detector.detect_into(images, maps)
    assert another_thread_runs_during(lambda: detector.detect_into(images, maps), attempts=1000)
    assert not another_thread_runs_during(lambda: sum(range(20_000)), attempts=5)  # so that the above means something


def another_thread_runs_during(call: Callable[[], object], attempts: int) -> bool:
    """Whether a call of a few tries lets go of the GIL: turns last so long here that no other way leads to it."""
    usual = sys.getswitchinterval()
    for _ in range(attempts):
        gate, ran = threading.Lock(), list[bool]()
        gate.acquire()

        def wait(gate: threading.Lock = gate, ran: list[bool] = ran) -> None:
            with gate:
                ran.append(True)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.01)  # until it waits at the gate, not for its turn
        sys.setswitchinterval(1000)
        try:
            gate.release()
            call()
            happened = bool(ran)
        finally:
            sys.setswitchinterval(usual)
        thread.join()
        if happened:
            return True
    return False
