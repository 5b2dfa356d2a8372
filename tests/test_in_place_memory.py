"""Maps into the caller's memory: no memory of its own, no hold on anything, no GIL."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from callers_arrays import GIVEN, images_of, room_for

import gconet.runtime as gr


def test_no_array_is_held_on_to(tiny_detector: gr.Detector, rng: np.random.Generator) -> None:
    images = images_of(2, rng)
    maps = room_for(images)
    left = [weakref.ref(images), weakref.ref(maps)]
    tiny_detector.detect_into(images, maps)
    del images, maps
    gc.collect()
    assert not any(array() is not None for array in left)


@pytest.mark.parametrize("given", ["numpy", "address"])
def test_a_call_makes_and_keeps_no_array(given: str, tiny_detector: gr.Detector, rng: np.random.Generator) -> None:
    images = images_of(4, rng)
    maps = room_for(images)
    ours = GIVEN[given](images), GIVEN[given](maps)
    for _ in range(20):
        tiny_detector.detect_into(*ours)
    gc.collect()
    tracemalloc.start()
    try:
        tiny_detector.detect_into(*ours)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(100):
            tiny_detector.detect_into(*ours)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The interpreter's own lists of objects to use again fill up on the way, with 256 small ones in the end.
    assert after - before < maps.nbytes / 2
    assert peak - after < maps.nbytes / 8  # objects for the call, but no array


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

# In a process of its own: in that of the tests, what earlier ones left behind comes and goes.
TEN_THOUSAND_CALLS = """
import gc, sys
import numpy as np
import gconet.runtime as gr
from gconet.bench.memory_growth import resident_mb

detector = gr.load(sys.argv[1])
images = np.random.default_rng(0).standard_normal((2, 1, 3, 64, 64), np.float32)
maps = np.empty((2, 1, 1, 64, 64), np.float32)
expected = [detector.session.infer({"images": array})["maps"] for array in images]
for turn in range(1000):
    detector.detect_into(images[turn % 2], maps[turn % 2])
gc.collect()
before, blocks = resident_mb(), sys.getallocatedblocks()
for turn in range(10_000):
    detector.detect_into(images[turn % 2], maps[turn % 2])
gc.collect()
print(resident_mb() - before, sys.getallocatedblocks() - blocks, np.array_equal(maps, expected))
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_ten_thousand_calls_leave_the_process_as_large_as_it_was(
    target: str, tiny_bundle: Callable[[str, str], Path]
) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    words = [sys.executable, "-c", TEN_THOUSAND_CALLS, str(tiny_bundle(target, "fp32"))]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    grown, blocks, equal = done.stdout.split()
    assert float(grown) < 1  # 100 bytes a call; a map alone is 16 kB
    assert int(blocks) < 1000  # one in ten calls
    assert equal == "True"


def test_other_threads_run_while_the_engine_works(tiny_detector: gr.Detector, rng: np.random.Generator) -> None:
    images = images_of(4, rng)
    maps = room_for(images)
    tiny_detector.detect_into(images, maps)
    assert another_thread_runs_during(lambda: tiny_detector.detect_into(images, maps), attempts=1000)
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
