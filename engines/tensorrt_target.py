"""TensorRT 10 and 11: a `.plan` tuned on the GPU that will run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gconet.engines.gpu_generations import why_not
from gconet.engines.target import EngineSpec
from gconet.engines.tensorrt_builder import build_plan, no_gpu, not_for_this_gpu
from gconet.engines.tensorrt_config import Job
from gconet.engines.tensorrt_gpu import present_gpus
from gconet.engines.tensorrt_products import TENSORRT, Product, load
from gconet.runtime.errors import TargetError
from gconet.runtime.session import why_not_runnable

if TYPE_CHECKING:
    import onnx


class TensorRtTarget:
    """Builds TensorRT plans; see `Target`. The same for all products: they differ by their table."""

    product: Product = TENSORRT
    packages: tuple[str, ...] = ("tensorrt",)
    lowers = ()

    @property
    def name(self) -> str:
        """As on the command line."""
        return self.product.target

    @property
    def precisions(self) -> tuple[str, ...]:
        """What it can build; on which GPU, `gconet.engines.gpu_generations` knows."""
        return self.product.precisions

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """GPUs it can be asked to build for."""
        return self.product.compute_capabilities

    def version(self) -> str:
        """Version of the library; raises TargetError also where it is of no use because a GPU is missing."""
        version = str(load(self.product).__version__)
        if not self.product.builds_without_gpu and not present_gpus():
            raise TargetError(no_gpu(self.product))
        return version

    def preferred_precision(self) -> str:
        """fp16, twice the rate of fp32 or more on every supported GPU."""
        return "fp16"

    def runs_here(self, precision: str | None = None) -> str | None:
        """None if this machine's GPU, its driver and the libraries can run plans."""
        gpus = present_gpus()
        if not gpus:
            return "it needs an NVIDIA GPU, and this machine has none, or no driver for it"
        if problem := why_not(gpus[0].compute_capability, self.name, precision or self.preferred_precision()):
            return f"not on this machine's {gpus[0].name}: {problem}"
        return why_not_runnable(self.name)

    def why_not_here(self, spec: EngineSpec) -> str | None:
        """As `runs_here`; and a plan runs on no GPU but those it was built for."""
        return self.runs_here(spec.precision) or not_for_this_gpu(self.name, spec)

    def build(self, graph: onnx.ModelProto, spec: EngineSpec, folder: Path) -> list[Path]:
        """Compile `detect.plan`, with what `build_plan` writes beside it."""
        return build_plan(Job(self.product, spec, tuple(present_gpus())), graph, folder)
