"""What every engine looks like to the detector, and which class runs which target."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import TargetError

Tensors = Mapping[str, NDArray[np.float32]]

# target -> "module:Class", imported on demand so that one engine never needs another's libraries.
SESSIONS: Mapping[str, str] = {
    "onnxruntime": "gconet.runtime.onnxruntime_session:OnnxRuntimeSession",
    "openvino": "gconet.runtime.openvino_session:OpenVinoSession",
}


class Session(Protocol):
    """An engine ready to run. Calls from several threads are safe.

    Attributes
    ----------
    max_group : largest group compiled into the engine; None where the group axis is free and memory is the limit.
    """

    max_group: int | None

    def infer(self, inputs: Tensors) -> Tensors:
        """Map `images` (N, 3, S, S) float32 to `maps` (N, 1, S, S) float32 in [0, 1]."""


def open_session(bundle: Bundle, device: str, threads: int | None) -> Session:
    """Load a bundle's engine.

    Raises
    ------
    TargetError
        If this machine, or this version of the runtime, cannot run the bundle's target.
    """
    target = bundle.manifest.target
    if target not in SESSIONS:
        raise TargetError(f"{bundle.folder} cannot run here: {why_not_runnable(target)}")
    if device not in ("auto", "cpu"):
        raise TargetError(f"target {target} runs on device auto or cpu, not {device!r}")
    module, _, name = SESSIONS[target].partition(":")
    session: Session = getattr(importlib.import_module(module), name)(bundle, threads)
    return session


def why_not_runnable(target: str) -> str:
    """Why no session exists for `target`, and what to do."""
    if target.startswith("tensorrt"):
        return (
            f"a {target} plan needs an NVIDIA GPU and this version's runtime has no session for it yet; "
            "build for this machine with `gconet build --target auto`"
        )
    return f"target {target!r} is unknown to this version: update gconet-deploy"
