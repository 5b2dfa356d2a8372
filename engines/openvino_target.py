"""OpenVINO: an IR for x86 and ARM CPUs; bf16 runs on AVX512-BF16 or AMX units where the CPU has them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gconet.engines.installed import import_or_explain
from gconet.engines.target import EngineSpec
from gconet.runtime.errors import TargetError

if TYPE_CHECKING:
    import onnx

DEVICE = "CPU"


class OpenVinoTarget:
    """Builds OpenVINO IR; see `Target`."""

    name = "openvino"
    precisions = ("fp32", "bf16", "int8")
    packages = ("openvino",)
    compute_capabilities = ()
    typed_graph = False  # bf16 is the plugin's own doing, asked for when the IR is compiled; int8 is in the graph

    def version(self) -> str:
        """Version of OpenVINO."""
        return str(import_or_explain("openvino", self.packages).__version__).partition("-")[0]

    def preferred_precision(self) -> str:
        """bf16 if the CPU has instructions for it, else fp32."""
        ov = import_or_explain("openvino", self.packages)
        capabilities = ov.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        return "bf16" if "BF16" in capabilities else "fp32"

    def runs_here(self) -> str | None:
        """None if OpenVINO and its CPU plugin can be imported."""
        try:
            ov = import_or_explain("openvino", self.packages)
        except TargetError as error:
            return str(error)
        return None if DEVICE in ov.Core().available_devices else "OpenVINO finds no CPU plugin: reinstall openvino"

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
                ov.save_model(model, description, compress_to_fp16=False)
                path = folder / description.name
                path.write_bytes(move_ir_weights(description, description.with_suffix(".bin"), store))
                written.append(path)
        return [*written, weights]
