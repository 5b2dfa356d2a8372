"""OpenVINO on the CPU."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import BundleError, TargetError, one_line
from gconet.runtime.host_arrays import address, unowned
from gconet.runtime.openvino_reports import unreported
from gconet.runtime.session import DETECT, INNER_TENSORS, PartTensors, SessionOptions, Tensors
from gconet.runtime.vnni import has_vnni

LOG = logging.getLogger(__name__)
DEVICE = "CPU"
# precision -> INFERENCE_PRECISION_HINT, of what is float. "dynamic" keeps the types of the IR, where "f16" would round
# its float32 islands to half too. On CPUs without half arithmetic the one computes in f32, the other in bf16: silently.
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "dynamic", "int8": "f32"}
# What the CPU plugin must report for it to be more than an emulation.
CAPABILITY = {"bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
COMPILED = 8  # graphs and group sizes kept compiled; each with an encoder holds its own copy of the weights, 60 MB


class OpenVinoSession:
    """Runs a bundle's IRs, compiled once per group size: a dynamic group axis costs 10 to 40 % of the speed.

    Calls from several threads are safe; they take turns, since each call uses all cores.
    """

    max_group = None

    def __init__(self, bundle: Bundle, options: SessionOptions) -> None:
        try:
            with unreported():
                import openvino as ov
        except (ImportError, OSError) as error:
            raise TargetError(f"openvino cannot be imported ({one_line(error)}): pip install openvino") from error
        precision = bundle.manifest.precision
        self._core = ov.Core()
        capabilities = self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        if problem := missing_arithmetic(precision, capabilities):
            raise TargetError(f"{bundle.folder} cannot run here: {problem}")
        hint = precision_hint(precision, capabilities)
        self._config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        if options.threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = options.threads
            # Pinned, the threads of two processes that share a machine would sit on the same cores.
            self._config["ENABLE_CPU_PINNING"] = False
        if options.layer_times is not None:
            self._config["PERF_COUNT"] = True
        self._ov, self._bundle = ov, bundle
        LOG.info("OpenVINO %s; CPU can %s; asked for %s", ov.__version__, ", ".join(capabilities), self._config)
        self.graphs = bundle.graphs(".xml")
        self._models: dict[str, Any] = {DETECT: self._read(DETECT)}
        self._requests: OrderedDict[Any, _Requests] = OrderedDict()
        self._lock = threading.Lock()

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one group; see `Session`."""
        return self.run(DETECT, inputs)

    def run(self, graph: str, inputs: PartTensors) -> PartTensors:
        """Run one of the bundle's graphs; see `GraphSession`."""
        try:
            with self._lock:
                requests = self._requests_of(graph, inputs)
                request = requests.own
                request.infer({name: self._as_input(array) for name, array in inputs.items()}, share_inputs=True)
                return {
                    name: _copy(request.get_output_tensor(index)) for index, name in enumerate(requests.output_names)
                }
        except BundleError:
            raise
        except Exception as error:  # RuntimeError, MemoryError, and what its plugins let through
            raise _failure(inputs, error) from error

    def run_into(self, graph: str, inputs: Tensors, outputs: Tensors) -> None:
        """Run one graph from and to the caller's memory; see `IntoSession`."""
        try:
            with self._lock:
                requests = self._requests_of(graph, inputs)
                request = requests.bound_to({**inputs, **outputs}, self._as_tensor)
                request.infer(share_outputs=True)  # without, it also copies the outputs for its caller
        except BundleError:
            raise
        except Exception as error:  # as above
            raise _failure(inputs, error) from error

    def infer_request(self, shape: tuple[int, ...]) -> Any:
        """The `openvino.InferRequest` of a group's shape (N, 3, S, S), for whoever looks into the engine."""
        with self._lock:
            return self._request(DETECT, {"images": shape}).own

    def _read(self, graph: str) -> Any:
        path, weights = self._bundle.file(f"{graph}.xml"), self._bundle.file(".bin")  # both are in the manifest
        try:
            model = self._core.read_model(path, weights)
        except RuntimeError as error:
            raise BundleError(f"OpenVINO {self._ov.__version__} cannot load {path}: {_last_line(error)}") from error
        return self._with_inner_types(model) if self._config["INFERENCE_PRECISION_HINT"] == HINTS["bf16"] else model

    def _with_inner_types(self, model: Any) -> Any:
        """The model with its inner tensors in bfloat16 also where they come in and go out."""
        ports = self._ov.preprocess.PrePostProcessor(model)
        for all_of_them, port in ((model.inputs, ports.input), (model.outputs, ports.output)):
            for name in INNER_TENSORS & {tensor.get_any_name() for tensor in all_of_them}:
                port(name).tensor().set_element_type(self._ov.Type.bf16)
        return ports.build()

    def _as_input(self, array: NDArray[Any]) -> Any:
        """What OpenVINO takes without a copy: bits of bfloat16 as such, which numpy has no type for."""
        if array.dtype != np.uint16:
            return array
        return self._ov.Tensor(np.ascontiguousarray(array), self._ov.Shape(list(array.shape)), self._ov.Type.bf16)

    def _as_tensor(self, array: NDArray[np.float32]) -> Any:
        """A tensor that lies where the array does, and does not keep it: requests remember their tensors."""
        return self._ov.Tensor(unowned(array), shared_memory=True)

    def _requests_of(self, graph: str, inputs: PartTensors) -> _Requests:
        return self._request(graph, {name: tuple(array.shape) for name, array in inputs.items()})

    def _request(self, graph: str, shapes: dict[str, tuple[int, ...]]) -> _Requests:
        key = graph, *sorted(shapes.items())
        if key not in self._requests:
            if graph not in self._models:
                self._models[graph] = self._read(graph)
            model = self._models[graph]
            start = time.perf_counter()
            model.reshape({name: list(shape) for name, shape in shapes.items()})
            compiled = self._core.compile_model(model, DEVICE, self._config)
            LOG.info("compiled graph %s for %s in %.0f ms", graph, shapes, 1e3 * (time.perf_counter() - start))
            self._requests[key] = _Requests(compiled, [output.get_any_name() for output in model.outputs])
            if len(self._requests) > COMPILED:
                self._requests.popitem(last=False)
        self._requests.move_to_end(key)
        return self._requests[key]


class _Requests:
    """The requests of one graph that is compiled for one shape of its inputs.

    Attributes
    ----------
    own : uses memory of the engine's.
    output_names : as the graph has them. A compiled one may know an output by the names of tensors that it merged.
    """

    def __init__(self, compiled: Any, output_names: Sequence[str]) -> None:
        self.own = compiled.create_infer_request()
        self.output_names = output_names
        self._compiled = compiled
        self._bound: Any = None  # the request that uses callers' memory, once one is wanted
        self._addresses: dict[str, int] = {}

    def bound_to(self, tensors: Tensors, as_tensor: Callable[[NDArray[np.float32]], Any]) -> Any:
        """The request that reads and writes these tensors, by name, where they lie."""
        if self._bound is None:
            self._bound = self._compiled.create_infer_request()
        for name, array in tensors.items():
            place = address(array)
            if self._addresses.get(name) != place:  # the shape is the same
                self._bound.set_tensor(name, as_tensor(array))
                self._addresses[name] = place
        return self._bound


def missing_arithmetic(precision: str, capabilities: Collection[str]) -> str | None:
    """None if the CPU plugin computes in a precision, and rightly; else the reason and the command that mends it."""
    if precision not in HINTS or CAPABILITY.get(precision, "FP32") not in capabilities:
        return f"this CPU has no {precision} arithmetic; build with `gconet build --target openvino --precision fp32`"
    if precision == "int8" and has_vnni() is False:
        return (
            "this CPU has no VNNI, and without it OpenVINO's sums of 8-bit products overflow; build with `gconet build "
            "--target openvino --precision fp32`, or int8 with `--target onnxruntime`"
        )
    return None


def precision_hint(precision: str, capabilities: Collection[str]) -> str:
    """The `INFERENCE_PRECISION_HINT` of a bundle's precision, by what the CPU plugin reports to be capable of."""
    if precision == "int8" and CAPABILITY["bf16"] in capabilities:
        return HINTS["bf16"]  # for sums and resizing: half the memory traffic, and still much finer than int8
    return HINTS[precision]


def _copy(tensor: Any) -> NDArray[Any]:
    values: NDArray[Any] = np.array(tensor.data)
    return values.view(np.uint16) if tensor.element_type.get_type_name() == "bf16" else values


def _failure(inputs: PartTensors, error: Exception) -> TargetError:
    count = len(next(iter(inputs.values())))
    return TargetError(f"OpenVINO cannot run a group of {count} photos: {_last_line(error)}")


def _last_line(error: Exception) -> str:
    """The reason; the lines before it are places in OpenVINO's own source."""
    lines = str(error).strip().splitlines()
    return lines[-1][:200] if lines else one_line(error)
