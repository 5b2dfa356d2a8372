"""ONNX Runtime on the CPU, or on an NVIDIA GPU through its CUDA or TensorRT provider."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import TargetError, UsageError, one_line
from gconet.runtime.host_arrays import address
from gconet.runtime.onnxruntime_graphs import Group, OnnxRuntimeGraphs
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import DETECT, PartTensors, SessionOptions, Tensors

if TYPE_CHECKING:
    from gconet.runtime.device_arrays import ForeignArray

LOG = logging.getLogger(__name__)
Answer = TypeVar("Answer")
BINDINGS = 8  # kept per thread: graphs and group sizes with memory of callers


class OnnxRuntimeSession:
    """Runs a bundle's `.onnx` artefact; safe to call from several threads.

    Input and output are bound where they lie: ONNX Runtime reads the caller's array, and writes the maps into the one
    that is returned, the only memory a call asks for outside its own pools. On a GPU, groups of the first few sizes go
    by way of memory that CUDA graphs read and write.
    """

    def __init__(self, bundle: Bundle, options: SessionOptions) -> None:
        try:
            import onnxruntime as ort
        except (ImportError, OSError) as error:
            raise TargetError(f"onnxruntime cannot be imported ({one_line(error)}): pip install onnxruntime") from error
        from gconet.runtime.onnxruntime_providers import TENSORRT, captures_graphs, create_session

        self._session = create_session(ort, bundle, options)
        self._create: Callable[[str], Any] = partial(create_session, ort, bundle, options)
        self._parts: dict[str, Any] = {DETECT: self._session}
        self._where, self._device, self._device_index = str(bundle.folder), options.device, options.device_index
        self._size = bundle.manifest.preprocessing.size
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        LOG.info("ONNX Runtime %s; providers: %s", ort.__version__, ", ".join(self.providers))
        self.max_group: int | None = bundle.manifest.max_group if self.providers[0] == TENSORRT else None
        # TensorRT compiles each graph for minutes, and its shapes are given for `detect`.
        self.graphs = frozenset({DETECT}) if self.providers[0] == TENSORRT else bundle.graphs(".onnx")
        self._stream: Any = None  # a gconet.runtime.cuda.Stream, once arrays on the GPU are asked for
        self._lock = threading.Lock()
        self._graphs: OnnxRuntimeGraphs | None = None
        if options.device == "cuda" and captures_graphs(self._session):
            place = "cuda", options.device_index
            self._graphs = OnnxRuntimeGraphs(ort, self._session, *place, self._size, self._lock)
        self._of_thread = threading.local()  # calls run at the same time, each with bindings of its own

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one group; see `Session`."""
        count = len(inputs["images"])
        try:
            images = np.ascontiguousarray(inputs["images"])
            maps = self._do(lambda: self._infer(images))
        except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
            raise _failure(count, error) from error
        return {"maps": maps}

    def _infer(self, images: FloatArray) -> FloatArray:
        if self._graphs is not None and (launched := self._graphs.infer(images)) is not None:
            return launched
        maps = np.empty(_shape_of_maps(images.shape), np.float32)
        binding = self._session.io_binding()
        binding.bind_cpu_input("images", images)
        binding.bind_output("maps", "cpu", 0, np.float32, maps.shape, maps.ctypes.data)
        self._session.run_with_iobinding(binding, self._plain)
        return maps

    def run(self, graph: str, inputs: PartTensors) -> PartTensors:
        """Run one of the bundle's graphs; see `GraphSession`."""
        session = self._do(lambda: self._part(graph))
        try:
            names = [output.name for output in session.get_outputs()]
            answers = self._do(lambda: session.run(names, dict(inputs), self._plain))
            return dict(zip(names, answers, strict=True))
        except Exception as error:  # as above
            raise _failure(len(next(iter(inputs.values()))), error) from error

    def run_into(self, graph: str, inputs: Tensors, outputs: Tensors) -> None:
        """Run one graph from and to the caller's memory; see `IntoSession`."""
        session = self._do(lambda: self._part(graph))
        try:
            self._do(lambda: self._run_into(graph, session, inputs, outputs))
        except Exception as error:  # as above
            raise _failure(len(next(iter(inputs.values()))), error) from error

    def _run_into(self, graph: str, session: Any, inputs: Tensors, outputs: Tensors) -> None:
        if not hasattr(self._of_thread, "bindings"):
            self._of_thread.bindings = OrderedDict[Any, _Binding]()
        bindings = self._of_thread.bindings
        key = graph, *(array.shape for array in inputs.values())
        if key not in bindings:
            bindings[key] = _Binding(session, copies=self._device == "cuda")
            if len(bindings) > BINDINGS:
                bindings.popitem(last=False)
        bindings.move_to_end(key)
        session.run_with_iobinding(bindings[key].bound_to(inputs, outputs), self._plain)

    def _do(self, work: Callable[[], Answer]) -> Answer:
        """Do what uses the engine: on the thread of its graphs, if it has any."""
        return work() if self._graphs is None else self._graphs.call(work)

    @property
    def _plain(self) -> Any:
        """Options of a run that launches no graph."""
        return None if self._graphs is None else self._graphs.plain

    def infer_device(
        self, inputs: Mapping[str, object], outputs: Mapping[str, object] | None = None
    ) -> Mapping[str, Any]:
        """Run one group from and to the GPU's memory; see `DeviceSession`.

        Sizes that have a CUDA graph are copied within it, others not at all. The maps are complete when it returns:
        ONNX Runtime waits for its own streams.
        """
        if self._device != "cuda":
            raise UsageError(f"{self._where} runs on the CPU: load it with device='cuda'")
        from gconet.runtime.cuda import Device, DeviceMemory, Stream
        from gconet.runtime.device_arrays import DeviceArray, check_apart, take_in, take_out

        with self._lock:
            if self._stream is None:
                self._stream = Stream(Device(self._device_index))
            with self._stream.device as device:
                images = take_in(inputs["images"], "images", self._stream)
                self._check_shape(images.shape)
                shape = _shape_of_maps(images.shape)
                if outputs is None:
                    maps: Any = DeviceMemory(device, int(np.prod(shape)) * 4)
                else:
                    maps = take_out(outputs["maps"], "maps", self._stream, shape)
                    check_apart(images, "images", maps, "maps")
                self._stream.synchronize()  # what computes the input may not know ONNX Runtime's streams
        try:
            self._do(lambda: self._run_on_device(images, maps.pointer))
        except Exception as error:  # as above
            raise _failure(shape[0], error) from error
        return {"maps": DeviceArray(maps.pointer, shape, self._stream, maps)}

    def _run_on_device(self, images: ForeignArray, maps: int) -> None:
        shape = _shape_of_maps(images.shape)

        def give(group: Group) -> None:
            self._copy(group.images.data_ptr(), images.pointer, images.shape)

        def take(group: Group) -> bool:
            self._copy(maps, group.maps.data_ptr(), shape)
            return True

        if self._graphs is not None and self._graphs.launch(images.shape, give, take):
            return
        where = "cuda", self._device_index, np.float32
        binding = self._session.io_binding()
        binding.bind_input("images", *where, images.shape, images.pointer)
        binding.bind_output("maps", *where, shape, maps)
        self._session.run_with_iobinding(binding, self._plain)

    def _copy(self, target: int, source: int, shape: tuple[int, ...]) -> None:
        with self._stream.device:
            self._stream.copy_on_device(target, source, int(np.prod(shape)) * 4)
            self._stream.synchronize()

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        size = self._size
        if len(shape) != 4 or shape[0] < 1 or shape[1:] != (3, size, size):
            raise UsageError(f"images: its shape is {shape}, it must be (N, 3, {size}, {size})")

    def _part(self, graph: str) -> Any:
        with self._lock:
            if graph not in self._parts:
                self._parts[graph] = self._create(graph)
            return self._parts[graph]

    def end_layer_times(self) -> Path:
        """Stop measuring layers, and write what was measured; see `SessionOptions.layer_times`."""
        return Path(self._session.end_profiling())


class _Binding:
    """What a session reads and writes: memory of callers, by address, so that no array is held on to.

    Parameters
    ----------
    copies : whether binding an input copies it to a GPU, so that what lies at an address must be bound for each run.
    """

    def __init__(self, session: Any, copies: bool) -> None:
        self._binding, self._copies = session.io_binding(), copies
        self._addresses: dict[str, int] = {}

    def bound_to(self, inputs: Tensors, outputs: Tensors) -> Any:
        """The binding to these tensors, by name, where they lie."""
        binds = (self._binding.bind_input, inputs, self._copies), (self._binding.bind_output, outputs, False)
        for bind, tensors, always in binds:
            for name, array in tensors.items():
                place = address(array)
                if always or self._addresses.get(name) != place:  # the shape is the same
                    bind(name, "cpu", 0, np.float32, array.shape, place)
                    self._addresses[name] = place
        return self._binding


def _shape_of_maps(images: tuple[int, ...]) -> tuple[int, ...]:
    count, _, *size = images
    return count, 1, *size


def _failure(count: int, error: Exception) -> TargetError:
    return TargetError(f"ONNX Runtime cannot run a group of {count} photos: {one_line(error)}")
