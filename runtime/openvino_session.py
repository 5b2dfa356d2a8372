"""OpenVINO on the CPU."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import numpy as np

from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import BundleError, TargetError, one_line
from gconet.runtime.session import SessionOptions, Tensors

DEVICE = "CPU"
# precision -> INFERENCE_PRECISION_HINT, of what is float. "dynamic" keeps the types of the IR, where "f16" would round
# its float32 islands to half too. On CPUs without half arithmetic the one computes in f32, the other in bf16: silently.
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "dynamic", "int8": "f32"}
# What the CPU plugin must report for it to be more than an emulation.
CAPABILITY = {"bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
COMPILED_SIZES = 4  # group sizes kept compiled; each holds its own copy of the weights, about 60 MB


class OpenVinoSession:
    """Runs a bundle's IR, compiled once per group size: a dynamic group axis costs 10 to 40 % of the speed.

    Calls from several threads are safe; they take turns, since each call uses all cores.
    """

    max_group = None

    def __init__(self, bundle: Bundle, options: SessionOptions) -> None:
        try:
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
        path, weights = bundle.file(".xml"), bundle.file(".bin")  # named, so that both are in the manifest
        try:
            self._model = self._core.read_model(path, weights)
        except RuntimeError as error:
            raise BundleError(f"OpenVINO {ov.__version__} cannot load {path}: {_last_line(error)}") from error
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one group; see `Session`."""
        try:
            with self._lock:
                request = self._request(inputs["images"].shape)
                request.infer(dict(inputs), share_inputs=True)
                return {"maps": np.array(request.get_output_tensor(0).data)}
        except Exception as error:  # RuntimeError, MemoryError, and what its plugins let through
            count = len(inputs["images"])
            raise TargetError(f"OpenVINO cannot run a group of {count} photos: {_last_line(error)}") from error

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            self._model.reshape(list(shape))
            compiled = self._core.compile_model(self._model, DEVICE, self._config)
            self._requests[shape] = compiled.create_infer_request()
            if len(self._requests) > COMPILED_SIZES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)
        return self._requests[shape]


def missing_arithmetic(precision: str, capabilities: Collection[str]) -> str | None:
    """None if the CPU plugin reports to compute in a precision; else the reason and the command that mends it."""
    if precision in HINTS and CAPABILITY.get(precision, "FP32") in capabilities:
        return None
    return f"this CPU has no {precision} arithmetic; build with `gconet build --target openvino --precision fp32`"


def precision_hint(precision: str, capabilities: Collection[str]) -> str:
    """The `INFERENCE_PRECISION_HINT` of a bundle's precision, by what the CPU plugin reports to be capable of."""
    if precision == "int8" and CAPABILITY["bf16"] in capabilities:
        return HINTS["bf16"]  # for sums and resizing: half the memory traffic, and still much finer than int8
    return HINTS[precision]


def _last_line(error: Exception) -> str:
    """The reason; the lines before it are places in OpenVINO's own source."""
    lines = str(error).strip().splitlines()
    return lines[-1][:200] if lines else one_line(error)
