"""The part of TensorRT's Python module that the runtime calls, running on the imaginary GPU of `fake_cuda`.

Its plans are JSON; its network gives every pixel a value that depends on the whole group, as GCoNet's does.
"""

from __future__ import annotations

import enum
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda import FakeDriver
from numpy.typing import NDArray

VERSION = "11.4.0.106"
SCRATCH_PER_PHOTO = 1000


def fake_network(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 3, S, S) -> (N, 1, S, S) in (0, 1)."""
    raw = images.mean(1, keepdims=True) - images.mean()
    return (1 / (1 + np.exp(-raw))).astype(np.float32)


def fake_plan(size: int, profiles: list[tuple[int, int, int]], **facts: Any) -> bytes:
    """A plan for the module of `fake_tensorrt`; see `Engine` for the facts."""
    return json.dumps({"size": size, "profiles": profiles} | facts).encode()


def fake_tensorrt(driver: FakeDriver, rtx: bool = False) -> Any:
    """A module like tensorrt, or tensorrt_rtx."""
    module = SimpleNamespace(
        __version__=VERSION,
        ILogger=ILogger,
        DataType=DataType,
        ExecutionContextAllocationStrategy=ExecutionContextAllocationStrategy,
        Refitter=Refitter,
        OnnxParserRefitter=OnnxParserRefitter,
        Runtime=lambda logger: (RtxRuntime if rtx else Runtime)(driver, logger),
    )
    if rtx:
        module.DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy
        module.EngineValidity = EngineValidity
        module.EngineInvalidityDiagnostics = EngineInvalidityDiagnostics
    return module


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class ILogger:
    Severity = Severity


class DataType(enum.Enum):
    FLOAT, HALF = range(2)


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY, EAGER, NONE = range(3)


class EngineValidity(enum.Enum):
    VALID, SUBOPTIMAL, INVALID = range(3)


class EngineInvalidityDiagnostics(enum.IntEnum):
    VERSION_MISMATCH, UNSUPPORTED_CC, OLD_CUDA_DRIVER, MALFORMED_ENGINE = 1, 2, 4, 32


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, driver: FakeDriver, logger: Any) -> None:
        self._driver, self._logger = driver, logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        try:
            facts = json.loads(serialized_engine)
        except ValueError:
            self._logger.log(Severity.ERROR, "Serialization failed: magic tag\nin runtime.cpp")
            return None
        if facts.get("needs_host_code") and not self.engine_host_code_allowed:
            self._logger.log(Severity.ERROR, "host code is not allowed")
            return None
        return Engine(self._driver, self._logger, facts)


class RtxRuntime(Runtime):
    def get_engine_validity(self, buffer: bytes) -> tuple[EngineValidity, int]:
        try:
            flags = json.loads(buffer).get("flags", 0)
        except ValueError:
            flags = EngineInvalidityDiagnostics.MALFORMED_ENGINE
        return EngineValidity.INVALID if flags else EngineValidity.VALID, int(flags)


class Engine:
    """Facts: size, profiles; optional names, dtype, loop (cannot be captured), stripped, refuses (a message)."""

    def __init__(self, driver: FakeDriver, logger: Any, facts: dict[str, Any]) -> None:
        self.driver, self.logger, self.facts = driver, logger, facts
        self.has_weights = not facts.get("stripped")
        self.names = facts.get("names", ["images", "maps"])
        self.num_io_tensors = len(self.names)
        self.num_optimization_profiles = len(facts["profiles"])
        self.contexts: list[IExecutionContext] = []
        self.cache: IRuntimeCache | None = None
        self.compiled: list[int] = []  # group sizes, as they were met first

    def get_tensor_name(self, index: int) -> str:
        return str(self.names[index])

    def get_tensor_dtype(self, name: str) -> DataType:  # noqa: ARG002
        return DataType[self.facts.get("dtype", "FLOAT")]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3 if name == "images" else 1, self.facts["size"], self.facts["size"])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [(count, *self.get_tensor_shape(name)[1:]) for count in self.facts["profiles"][profile_index]]

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, how: Any) -> IExecutionContext:
        kind = IExecutionContext
        if isinstance(how, IRuntimeConfig):
            assert how.dynamic_shapes_kernel_specialization_strategy is DynamicShapesKernelSpecializationStrategy.EAGER
            self.cache, how, kind = how.cache, how.strategy, RtxExecutionContext
        assert how is ExecutionContextAllocationStrategy.USER_MANAGED
        self.contexts.append(kind(self))
        return self.contexts[-1]


class IRuntimeCache:
    """Holds the group sizes whose kernels were compiled."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def deserialize(self, blob: bytes) -> bool:
        try:
            self.counts = json.loads(blob)
        except ValueError:
            return False
        return True

    def serialize(self) -> memoryview:
        return memoryview(json.dumps(self.counts).encode())


class IRuntimeConfig:
    strategy: Any = None
    cache: IRuntimeCache | None = None
    dynamic_shapes_kernel_specialization_strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self.cache = cache
        return True


class IExecutionContext:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._driver = engine, engine.driver
        self.profile: int | None = None
        self.shape: tuple[int, ...] = ()
        self.runs = 0  # calls of execute_async_v3, captured ones included
        self._memory, self._memory_size = 0, 0
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle in self._driver.streams
        self.profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        smallest, _, largest = self._engine.get_tensor_profile_shape(name, self.profile)
        self.shape = shape
        return smallest[0] <= shape[0] <= largest[0] and shape[1:] == smallest[1:]

    def update_device_memory_size_for_shapes(self) -> int:
        return self.shape[0] * SCRATCH_PER_PHOTO

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.update_device_memory_size_for_shapes()
        self._memory, self._memory_size = memory, size

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        stream = self._driver.streams[stream_handle]
        self.runs += 1
        if reason := self._engine.facts.get("refuses"):
            self._engine.logger.log(Severity.ERROR, reason)
            return False
        if self._engine.facts.get("loop") and stream.captured is not None:
            self._engine.logger.log(Severity.ERROR, "operation not permitted when stream is capturing")
            stream.broken = True
            return False
        shape, images, maps, scratch = self.shape, self._addresses["images"], self._addresses["maps"], self._memory
        scratch_shape = (self._memory_size // 4,)

        def run() -> None:
            answer = fake_network(self._driver.tensor(images, shape))
            self._driver.tensor(scratch, scratch_shape)[...] = np.nan
            self._driver.tensor(maps, (shape[0], 1, *shape[2:]))[...] = answer if self._engine.has_weights else 0

        stream.append(run)
        return True


class RtxExecutionContext(IExecutionContext):
    def execute_async_v3(self, stream_handle: int) -> bool:
        cache = self._engine.cache
        assert cache is not None
        if self.shape[0] not in cache.counts:
            assert self._driver.streams[stream_handle].captured is None
            cache.counts.append(self.shape[0])
            self._engine.compiled.append(self.shape[0])
        return super().execute_async_v3(stream_handle)

    def is_stream_capturable(self, stream: int) -> bool:  # noqa: ARG002
        return not self._engine.facts.get("loop")


class Refitter:
    def __init__(self, engine: Engine, logger: Any) -> None:
        self.engine, self.logger = engine, logger

    def refit_cuda_engine(self) -> bool:
        self.engine.has_weights = True
        return True

    def get_missing_weights(self) -> list[str]:
        return [] if self.engine.has_weights else ["conv1_1.weight"]


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, logger: Any) -> None:
        self._refitter, self._logger = refitter, logger

    def refit_from_file(self, model: str) -> bool:
        with open(model, "rb") as file:  # noqa: PTH123
            return file.read() == b"weights"
