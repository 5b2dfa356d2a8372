"""What a target is, and the specification of the engine it builds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gconet.engines.gpu_generations import why_not
from gconet.engines.plan_options import DEFAULT_PLAN, PlanOptions
from gconet.engines.tensorrt_products import check_plan_options
from gconet.runtime.errors import UsageError

if TYPE_CHECKING:
    import onnx  # not at run time: `gconet doctor` must work without it, to say that it is missing


@dataclass(frozen=True)
class EngineSpec:
    """What to build.

    Attributes
    ----------
    precision : "fp32", "bf16", "fp16" or "int8"; must be one of the target's.
    max_group : largest group that is verified, at least 1; a plan takes no larger one.
    compute_capabilities : NVIDIA GPUs a plan is for, such as "8.9"; empty leaves the target's default.
    plan : how a TensorRT plan is built.
    """

    precision: str
    max_group: int
    compute_capabilities: tuple[str, ...] = ()
    plan: PlanOptions = DEFAULT_PLAN

    def __post_init__(self) -> None:
        if self.max_group < 1:
            raise UsageError(f"--max-group {self.max_group}: the largest group must be at least 1")


class Target(Protocol):
    """A way to turn the exported graph into an artefact.

    Attributes
    ----------
    name : as on the command line and in the manifest.
    precisions : what it can build, the safest first.
    packages : distributions it needs, for `pip install`.
    compute_capabilities : NVIDIA GPUs it can be asked to build for; empty for CPU targets.
    lowers : precisions that it brings an fp32 graph to by itself; the others must be the types of the graph.
    """

    name: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    compute_capabilities: tuple[str, ...]
    lowers: tuple[str, ...]

    def version(self) -> str:
        """Version of its library; raises TargetError, with the command that installs it, if that is missing."""

    def preferred_precision(self) -> str:
        """The fastest precision this machine has instructions for and that keeps parity as a rule."""

    def runs_here(self, precision: str | None = None) -> str | None:
        """None if engines of this target run on this machine, else the reason why not, in one line.

        Parameters
        ----------
        precision : of the engine; None asks about the target's preferred one.
        """

    def why_not_here(self, spec: EngineSpec) -> str | None:
        """None if the engine built to `spec` runs on this machine, else the reason why not, in one line."""

    def build(self, graph: onnx.ModelProto, spec: EngineSpec, folder: Path) -> list[Path]:
        """Write the artefacts into `folder` and return their paths; raises TargetError if the library refuses."""


def check_spec(target: Target, spec: EngineSpec) -> None:
    """Raise UsageError if `target` cannot build `spec`."""
    if spec.precision not in target.precisions:
        raise UsageError(
            f"target {target.name} builds {', '.join(target.precisions)}, not {spec.precision}: change --precision"
        )
    check_plan_options(target.name, spec)
    if spec.compute_capabilities and not target.compute_capabilities:
        raise UsageError(f"--compute-capability is for TensorRT plans, not for target {target.name}: leave it out")
    for capability in spec.compute_capabilities:
        if capability not in target.compute_capabilities:
            raise UsageError(
                f"compute capability {capability!r}: target {target.name} builds for "
                f"{', '.join(target.compute_capabilities)}{_why(capability, target.name, spec.precision)}"
            )


def _why(capability: str, target: str, precision: str) -> str:
    problem = why_not(capability, target, precision) if re.fullmatch(r"\d+\.\d", capability) else None
    return f": {problem}" if problem else ""
