"""What a build is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gconet.engines.plan_options import DEFAULT_PLAN, PlanOptions


@dataclass(frozen=True)
class BuildRequest:
    """What `build_engine.py` was asked for; None and "auto" leave the choice to the build.

    Attributes
    ----------
    checkpoint : .safetensors or .pth.
    target, precision : as on the command line.
    size : side of the square input, None for the checkpoint's own.
    max_group, compute_capabilities, plan : see `EngineSpec`.
    out : folder of the bundle; an earlier bundle there is replaced.
    calibration : folder of groups of photos that narrow precisions are calibrated on; None for the example photos.
    allow_parity_failure : publish an engine outside the tolerance too; its manifest says so.
    convolutions : their form, one of `FORMS`.
    """

    checkpoint: Path
    target: str
    precision: str
    size: int | None
    max_group: int
    compute_capabilities: tuple[str, ...]
    out: Path
    plan: PlanOptions = DEFAULT_PLAN
    calibration: Path | None = None
    allow_parity_failure: bool = False
    convolutions: str = "auto"
