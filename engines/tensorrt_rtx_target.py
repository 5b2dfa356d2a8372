"""TensorRT for RTX: a `.plan` for NVIDIA RTX GPUs, compiled ahead of time on a machine with or without a GPU.

Kernels are compiled just in time on the user's GPU, so one plan serves several compute capabilities. The network is
strongly typed: its precision is the graph's.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gconet.engines.installed import installed_version
from gconet.engines.target import EngineSpec
from gconet.runtime.errors import TargetError, one_line

if TYPE_CHECKING:
    import onnx

BINDINGS = "tensorrt-rtx-cu12-bindings"
LIBRARIES = "onnxruntime-ep-nv-tensorrt-rtx-cu12"
USUAL_GROUP = 5  # what kernels are chosen for; any size up to max_group runs


class TensorRtRtxTarget:
    """Builds TensorRT for RTX plans; see `Target`."""

    name = "tensorrt-rtx"
    precisions = ("fp16", "fp32")
    packages = (BINDINGS, LIBRARIES)
    compute_capabilities = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
    typed_graph = True

    def version(self) -> str:
        """Version of TensorRT for RTX."""
        return str(self._module().__version__)

    def preferred_precision(self) -> str:
        """fp16, twice the rate of fp32 or more on every supported GPU."""
        return "fp16"

    def runs_here(self) -> str | None:
        """Plans are built here, not run: the runtime has no session for them yet."""
        return "plans build on any machine, but this version's runtime has no session to run them"

    def build(self, graph: onnx.ModelProto, spec: EngineSpec, folder: Path) -> list[Path]:
        """Compile `detect.plan` with one optimisation profile, groups of 1 to `max_group`."""
        trt = self._module()
        logger = _ErrorLog(trt)
        builder = trt.Builder(logger.trt_logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger.trt_logger)
        if not parser.parse(graph.SerializeToString()):
            reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
            raise TargetError(f"TensorRT for RTX {trt.__version__} refuses the graph: {reasons}")
        config = builder.create_builder_config()
        config.add_optimization_profile(_profile(builder, network, spec.max_group))
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32: TF32 keeps 10 bits of the mantissa
        if spec.compute_capabilities:
            config.num_compute_capabilities = len(spec.compute_capabilities)
            for index, capability in enumerate(spec.compute_capabilities):
                config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}"), index)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise TargetError(f"TensorRT for RTX {trt.__version__} built no plan: {'; '.join(logger.errors)}")
        path = folder / "detect.plan"
        path.write_bytes(plan)
        return [path]

    def _module(self) -> ModuleType:
        """Import the bindings after their libraries, which two different installations provide."""
        try:
            if importlib.util.find_spec("tensorrt_rtx"):
                return importlib.import_module("tensorrt_rtx")  # the vendor's own installation
            _preload_libraries()
            return importlib.import_module("tensorrt_rtx_bindings")
        except (ImportError, OSError) as error:
            raise TargetError(
                f"TensorRT for RTX cannot be imported ({one_line(error)}): pip install {' '.join(self.packages)}"
            ) from error


class _ErrorLog:
    """A TensorRT logger that keeps errors for the message the user sees and stays silent otherwise."""

    def __init__(self, trt: ModuleType) -> None:
        self.errors: list[str] = []
        errors = self.errors
        worth_keeping = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

        class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in worth_keeping:
                    errors.append(message)

        self.trt_logger = Logger()


def _profile(builder: Any, network: Any, max_group: int) -> Any:
    profile = builder.create_optimization_profile()
    images = network.get_input(0)
    _, *image = images.shape
    usual = min(USUAL_GROUP, max_group)
    profile.set_shape(images.name, min=(1, *image), opt=(usual, *image), max=(max_group, *image))
    return profile


def _preload_libraries() -> None:
    """Load libcudart, TensorRT for RTX and its ONNX parser, in this order, for the bindings to link against."""
    spec = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    if spec is None or not spec.submodule_search_locations or installed_version(BINDINGS) is None:
        raise ImportError(f"{BINDINGS} or {LIBRARIES} is not installed")
    folder = Path(spec.submodule_search_locations[0])
    for stem in ("libcudart", "libtensorrt_rtx", "libtensorrt_onnxparser_rtx"):
        files = [path for path in folder.iterdir() if re.fullmatch(rf"{stem}\.so(\.\d+)*", path.name)]
        if not files:
            raise ImportError(f"{LIBRARIES} has no {stem}")
        ctypes.CDLL(str(max(files, key=lambda path: len(path.name))), mode=ctypes.RTLD_GLOBAL)
