"""ONNX Runtime: an optimised `.onnx` that runs everywhere, the choice of last resort."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gconet.engines.installed import import_or_explain, onnxruntime_conflict
from gconet.engines.target import EngineSpec
from gconet.runtime.errors import TargetError, one_line

if TYPE_CHECKING:
    import onnx

PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeTarget:
    """Builds for ONNX Runtime's CPU provider; see `Target`."""

    name = "onnxruntime"
    precisions = ("fp32", "int8")
    packages = ("onnxruntime",)
    compute_capabilities = ()
    lowers = ()

    def version(self) -> str:
        """Version of ONNX Runtime; raises TargetError also where a rival wheel breaks it."""
        conflict = onnxruntime_conflict()
        if conflict:
            raise TargetError(conflict)
        return str(import_or_explain("onnxruntime", self.packages).__version__)

    def preferred_precision(self) -> str:
        """fp32: the CPU provider only emulates the narrower floats."""
        return "fp32"

    def runs_here(self, precision: str | None = None) -> str | None:  # noqa: ARG002 (it emulates what a CPU has not)
        """None if ONNX Runtime can be imported and no rival wheel breaks it."""
        try:
            self.version()
        except TargetError as error:
            return str(error)
        return None

    def why_not_here(self, spec: EngineSpec) -> str | None:
        """As `runs_here`."""
        return self.runs_here(spec.precision)

    def build(self, graph: onnx.ModelProto, spec: EngineSpec, folder: Path) -> list[Path]:  # noqa: ARG002 (any group)
        """Write `detect.onnx` with constants folded and what is redundant taken out.

        Fused operators and blocked layouts suit one kind of processor, so they are left to the session that loads it.
        """
        import onnx.inliner

        ort = import_or_explain("onnxruntime", self.packages)
        path = folder / "detect.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch, "detect.onnx")
            onnx.save(onnx.inliner.inline_local_functions(graph), source)
            try:
                ort.InferenceSession(source, options, providers=[PROVIDER])
            except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
                raise TargetError(f"ONNX Runtime {ort.__version__} refuses the graph: {one_line(error)}") from error
        return [path]
