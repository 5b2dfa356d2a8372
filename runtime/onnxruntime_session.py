"""ONNX Runtime on the CPU, or on an NVIDIA GPU through its CUDA or TensorRT provider."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import TargetError, UsageError, one_line
from gconet.runtime.session import DETECT, PartTensors, SessionOptions, Tensors

LOG = logging.getLogger(__name__)


class OnnxRuntimeSession:
    """Runs a bundle's `.onnx` artefact; safe to call from several threads.

    Input and output are bound where they lie: ONNX Runtime reads the caller's array, and writes the maps into the one
    that is returned, the only memory a call asks for outside its own pools.
    """

    def __init__(self, bundle: Bundle, options: SessionOptions) -> None:
        try:
            import onnxruntime as ort
        except (ImportError, OSError) as error:
            raise TargetError(f"onnxruntime cannot be imported ({one_line(error)}): pip install onnxruntime") from error
        from gconet.runtime.onnxruntime_providers import TENSORRT, create_session

        self._session = create_session(ort, bundle, options)
        self._create: Callable[[str], Any] = partial(create_session, ort, bundle, options)
        self._parts: dict[str, Any] = {DETECT: self._session}
        self._where, self._device, self._device_index = str(bundle.folder), options.device, options.device_index
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        LOG.info("ONNX Runtime %s; providers: %s", ort.__version__, ", ".join(self.providers))
        self.max_group: int | None = bundle.manifest.max_group if self.providers[0] == TENSORRT else None
        # TensorRT compiles each graph for minutes, and its shapes are given for `detect`.
        self.graphs = frozenset({DETECT}) if self.providers[0] == TENSORRT else bundle.graphs(".onnx")
        self._stream: Any = None  # a gconet.runtime.cuda.Stream, once arrays on the GPU are asked for
        self._lock = threading.Lock()

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one group; see `Session`."""
        count = len(inputs["images"])
        try:
            images = np.ascontiguousarray(inputs["images"])
            maps = np.empty(_shape_of_maps(images.shape), np.float32)
            binding = self._session.io_binding()
            binding.bind_cpu_input("images", images)
            binding.bind_output("maps", "cpu", 0, np.float32, maps.shape, maps.ctypes.data)
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
            raise _failure(count, error) from error
        return {"maps": maps}

    def run(self, graph: str, inputs: PartTensors) -> PartTensors:
        """Run one of the bundle's graphs; see `GraphSession`."""
        with self._lock:
            if graph not in self._parts:
                self._parts[graph] = self._create(graph)
            session = self._parts[graph]
        try:
            names = [output.name for output in session.get_outputs()]
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))
        except Exception as error:  # as above
            raise _failure(len(next(iter(inputs.values()))), error) from error

    def infer_device(
        self, inputs: Mapping[str, object], outputs: Mapping[str, object] | None = None
    ) -> Mapping[str, Any]:
        """Run one group from and to the GPU's memory, without a copy; see `DeviceSession`.

        The maps are complete when it returns: ONNX Runtime waits for its own streams.
        """
        if self._device != "cuda":
            raise UsageError(f"{self._where} runs on the CPU: load it with device='cuda'")
        from gconet.runtime.cuda import Device, DeviceMemory, Stream
        from gconet.runtime.device_arrays import DeviceArray, take_in, take_out

        with self._lock:
            if self._stream is None:
                self._stream = Stream(Device(self._device_index))
            with self._stream.device as device:
                images = take_in(inputs["images"], "images", self._stream)
                shape = _shape_of_maps(images.shape)
                maps = (
                    DeviceMemory(device, int(np.prod(shape)) * 4)
                    if outputs is None
                    else take_out(outputs["maps"], "maps", self._stream, shape)
                )
                self._stream.synchronize()  # what computes the input may not know ONNX Runtime's streams
        where = "cuda", self._device_index, np.float32
        try:
            binding = self._session.io_binding()
            binding.bind_input("images", *where, images.shape, images.pointer)
            binding.bind_output("maps", *where, shape, maps.pointer)
            self._session.run_with_iobinding(binding)
        except Exception as error:  # as above
            raise _failure(shape[0], error) from error
        return {"maps": DeviceArray(maps.pointer, shape, self._stream, maps)}

    def end_layer_times(self) -> Path:
        """Stop measuring layers, and write what was measured; see `SessionOptions.layer_times`."""
        return Path(self._session.end_profiling())


def _shape_of_maps(images: tuple[int, ...]) -> tuple[int, ...]:
    count, _, *size = images
    return count, 1, *size


def _failure(count: int, error: Exception) -> TargetError:
    return TargetError(f"ONNX Runtime cannot run a group of {count} photos: {one_line(error)}")
