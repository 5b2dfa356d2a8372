"""Two imaginary GPUs and no engine, for tests: fixtures `two_gpus`, `gpu_stream` and `gpu_values`."""

from __future__ import annotations

import numpy as np
import pytest
from fake_cuda import FakeDriver

from gconet.runtime import cuda
from gconet.runtime.cuda import Device, Stream
from gconet.runtime.preprocess import FloatArray


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """Two imaginary GPUs in place of what this machine has."""
    fake = FakeDriver(devices=2)
    monkeypatch.setattr(cuda, "load_driver", lambda: fake)
    return fake


@pytest.fixture
def gpu_stream(two_gpus: FakeDriver) -> Stream:  # noqa: ARG001 (must be there first)
    """A stream of the first GPU."""
    return Stream(Device(0))


@pytest.fixture
def gpu_values(rng: np.random.Generator) -> FloatArray:
    """What an array holds."""
    return rng.standard_normal((2, 3, 4), np.float32)
