"""OpenVINO: an IR for x86 and ARM CPUs; bf16 and fp16 run where the CPU has instructions for them.

The plugin lowers an fp32 graph to bf16 when the IR is compiled. It could to fp16 too, but then without our equalisation
and the float32 islands; so that graph is typed, and the plugin is told to keep its types.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from gconet.engines.installed import import_or_explain
from gconet.engines.target import EngineSpec
from gconet.runtime.errors import TargetError
from gconet.runtime.openvino_session import DEVICE, missing_arithmetic

if TYPE_CHECKING:
    import onnx


class OpenVinoTarget:
    """Builds OpenVINO IR; see `Target`."""

    name = "openvino"
    precisions = ("fp32", "bf16", "fp16", "int8")
    packages = ("openvino",)
    compute_capabilities = ()
    lowers = ("bf16",)

    def version(self) -> str:
        """Version of OpenVINO."""
        return str(import_or_explain("openvino", self.packages).__version__).partition("-")[0]

    def preferred_precision(self) -> str:
        """bf16 if the CPU has instructions for it, else fp32; fp16 was never timed, and bf16 has the units of AMX."""
        ov = import_or_explain("openvino", self.packages)
        return "bf16" if missing_arithmetic("bf16", _capabilities(ov)) is None else "fp32"

    def runs_here(self, precision: str | None = None) -> str | None:
        """None if OpenVINO and its CPU plugin can be imported, and that has the arithmetic on this CPU."""
        try:
            ov = import_or_explain("openvino", self.packages)
        except TargetError as error:
            return str(error)
        if DEVICE not in ov.Core().available_devices:
            return "OpenVINO finds no CPU plugin: reinstall openvino"
        return missing_arithmetic(precision, _capabilities(ov)) if precision else None

    def why_not_here(self, spec: EngineSpec) -> str | None:
        """As `runs_here`."""
        return self.runs_here(spec.precision)

    def build(self, graph: onnx.ModelProto, spec: EngineSpec, folder: Path) -> list[Path]:  # noqa: ARG002 (any group)
        """Write an `.xml` for each of the bundle's graphs, and one file of weights, in fp32 or as the graph has them.

        The group axis is dynamic.
        """
        import onnx.inliner

        from gconet.engines.graph_parts import cut
        from gconet.engines.shared_weights import WEIGHTS_FILE, WeightStore, move_ir_weights

        ov = import_or_explain("openvino", self.packages)
        weights, written = folder / WEIGHTS_FILE, []
        with tempfile.TemporaryDirectory() as scratch, weights.open("xb") as file:
            store = WeightStore(file)
            for name, part in cut(graph).items():
                source, description = Path(scratch, f"{name}.onnx"), Path(scratch, f"{name}.xml")
                onnx.save(onnx.inliner.inline_local_functions(part), source)  # OpenVINO does not read functions
                try:
                    model = ov.Core().read_model(source)
                except RuntimeError as error:
                    reason = str(error).strip().splitlines()[-1]
                    raise TargetError(f"OpenVINO {ov.__version__} refuses the graph {name}: {reason}") from error
                try:
                    ov.save_model(model, description, compress_to_fp16=False)
                except RuntimeError as error:
                    reason = str(error).strip().splitlines()[-1]
                    raise TargetError(f"OpenVINO cannot write to {scratch}: {reason}: is the disk full?") from error
                path = folder / description.name
                path.write_bytes(move_ir_weights(description, description.with_suffix(".bin"), store))
                written.append(path)
        return [*written, weights]


def _capabilities(ov: ModuleType) -> list[str]:
    capabilities: list[str] = ov.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    return capabilities
