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

    from gconet.engines.shared_weights import WeightStore

PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeTarget:
    """Builds for ONNX Runtime's CPU and CUDA providers; see `Target`. fp16 is for GPUs: CPUs emulate it, slowly."""

    name = "onnxruntime"
    precisions = ("fp32", "fp16", "int8")
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

    def runs_here(self, precision: str | None = None) -> str | None:
        """None if ONNX Runtime can be imported and no rival wheel breaks it; fp16 wants its device named."""
        try:
            self.version()
        except TargetError as error:
            return str(error)
        if precision == "fp16":
            return "half precision is for device cuda: on the CPU, the default, it is float32 between casts"
        return None

    def why_not_here(self, spec: EngineSpec) -> str | None:  # noqa: ARG002 (a CPU emulates what it has not)
        """None if ONNX Runtime can be imported and no rival wheel breaks it: a CPU rounds as a GPU does, if slowly."""
        return self.runs_here()

    def build(self, graph: onnx.ModelProto, spec: EngineSpec, folder: Path) -> list[Path]:
        """Write an `.onnx` for each of the bundle's graphs, and one file of weights.

        Constants are folded and what is redundant is taken out. Fused operators and blocked layouts suit one kind of
        processor, so they are left to the session that loads it. An fp16 graph is loaded to see that it can be, and
        written as it is: what ONNX Runtime writes on a CPU computes in float32, between casts. It is for GPUs, so it
        gets the forms that suit them, and its shapes are spelled out. Not so for the others: where it knows all sizes,
        ONNX Runtime lays more of the graph out in blocks on a CPU, and sums come out otherwise in the last bits.
        """
        from gconet.engines.graph_parts import cut
        from gconet.engines.shared_weights import WEIGHTS_FILE, WeightStore

        weights, written = folder / WEIGHTS_FILE, []
        with weights.open("xb") as file:
            store = WeightStore(file)
            for name, part in cut(graph).items():
                written.append(self._build_part(part, folder / f"{name}.onnx", store, spec.precision != "fp16"))
        return [*written, weights]

    def _build_part(self, graph: onnx.ModelProto, path: Path, store: WeightStore, optimised: bool) -> Path:
        import onnx.inliner

        from gconet.engines.cuda_forms import suit_cuda
        from gconet.engines.shared_weights import move_onnx_weights
        from gconet.engines.spelled_shapes import spell_shapes

        ort = import_or_explain("onnxruntime", self.packages)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 3
        inlined = onnx.inliner.inline_local_functions(graph)
        with tempfile.TemporaryDirectory() as scratch:
            source, result = Path(scratch, "source.onnx"), Path(scratch, "optimised.onnx")
            options.optimized_model_filepath = str(result)
            onnx.save(inlined if optimised else suit_cuda(spell_shapes(inlined)), source)
            try:
                ort.InferenceSession(source, options, providers=[PROVIDER])
            except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
                raise TargetError(
                    f"ONNX Runtime {ort.__version__} refuses the graph {path.stem}: {one_line(error)}"
                ) from error
            model = onnx.load(result if optimised else source)
        move_onnx_weights(model, store)
        onnx.save(model, path)
        return path
