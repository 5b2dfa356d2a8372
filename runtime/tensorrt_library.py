"""Importing TensorRT or TensorRT for RTX: one Python interface, two products, several ways to be installed."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
from collections import deque
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from gconet.runtime.errors import TargetError, one_line

Product = Literal["tensorrt", "tensorrt-rtx"]

RTX_BINDINGS = "tensorrt-rtx-cu12-bindings"
RTX_LIBRARIES = "onnxruntime-ep-nv-tensorrt-rtx-cu12"

NAMES: dict[Product, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
INSTALL: dict[Product, str] = {
    "tensorrt": "pip install tensorrt",
    "tensorrt-rtx": f"pip install {RTX_BINDINGS} {RTX_LIBRARIES}",
}


def load_tensorrt(product: Product) -> ModuleType:
    """Import a product's Python module; what it offers is the same for both but for a few flags.

    Raises
    ------
    TargetError
        With the command that installs it, if it or a library of its cannot be loaded.
    """
    try:
        module = _import_rtx() if product == "tensorrt-rtx" else importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise TargetError(f"{NAMES[product]} cannot be imported ({one_line(error)}): {INSTALL[product]}") from error
    if not hasattr(module, "Runtime"):
        raise TargetError(f"{NAMES[product]} is installed without its library: {INSTALL[product]}")
    return module


def collecting_logger(trt: ModuleType) -> tuple[Any, deque[str]]:
    """A TensorRT logger that prints nothing, and the last errors it was told, oldest first, for messages to users."""
    errors: deque[str] = deque(maxlen=16)
    worth_keeping = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

    class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in worth_keeping:
                errors.append(message)

    return Logger(), errors


def _import_rtx() -> ModuleType:
    if importlib.util.find_spec("tensorrt_rtx"):
        return importlib.import_module("tensorrt_rtx")  # the vendor's own installation
    _preload_rtx_libraries()
    return importlib.import_module("tensorrt_rtx_bindings")


def _preload_rtx_libraries() -> None:
    """Load libcudart, TensorRT for RTX and its ONNX parser, in this order, for the bindings to link against."""
    spec = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    if spec is None or not spec.submodule_search_locations or not _is_installed(RTX_BINDINGS):
        raise ImportError(f"{RTX_BINDINGS} or {RTX_LIBRARIES} is not installed")
    folder = Path(spec.submodule_search_locations[0])
    for stem in ("libcudart", "libtensorrt_rtx", "libtensorrt_onnxparser_rtx"):
        files = [path for path in folder.iterdir() if re.fullmatch(rf"{stem}\.so(\.\d+)*", path.name)]
        if not files:
            raise ImportError(f"{RTX_LIBRARIES} has no {stem}")
        ctypes.CDLL(str(max(files, key=lambda path: len(path.name))), mode=ctypes.RTLD_GLOBAL)


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
