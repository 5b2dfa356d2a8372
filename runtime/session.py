"""What every engine looks like to the detector, which class runs which target, and on what devices."""

from __future__ import annotations

import importlib
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import TargetError, UsageError

if TYPE_CHECKING:
    from gconet.runtime.device_arrays import DeviceArray
    from gconet.runtime.tensorrt_library import Product

LOG = logging.getLogger(__name__)
Tensors = Mapping[str, NDArray[np.float32]]
PartTensors = Mapping[str, NDArray[Any]]
Provider = Literal["cuda", "tensorrt"]
DETECT = "detect"  # the graph that answers in one call, which every bundle has
# What only goes from one graph of a bundle to another: in a type of the engine's choice.
INNER_TENSORS = frozenset({"features", "query", "lateral_2", "lateral_3", "lateral_4"})

# target -> "module:Class", imported on demand so that one engine never needs another's libraries.
SESSIONS: Mapping[str, str] = {
    "onnxruntime": "gconet.runtime.onnxruntime_session:OnnxRuntimeSession",
    "openvino": "gconet.runtime.openvino_session:OpenVinoSession",
    "tensorrt": "gconet.runtime.tensorrt_session:TensorRtSession",
    "tensorrt-rtx": "gconet.runtime.tensorrt_session:TensorRtSession",
}

# target -> kinds of device it runs on; the first is what "auto" means, and where a build measures parity and latency.
DEVICES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("cpu", "cuda"),
    "openvino": ("cpu",),
    "tensorrt": ("cuda",),
    "tensorrt-rtx": ("cuda",),
}


@dataclass(frozen=True)
class SessionOptions:
    """How to run an engine.

    Attributes
    ----------
    device, device_index : "cpu", or "cuda" and the number of the GPU.
    threads : of the CPU; None leaves the choice to the engine.
    cuda_graphs : whether TensorRT, and ONNX Runtime by its provider "cuda", launch repeated work as CUDA graphs.
    provider : what ONNX Runtime uses a GPU by.
    layer_times : folder for the time of each layer, which costs a little speed; None leaves it unmeasured. ONNX Runtime
        writes a trace there, OpenVINO keeps the times with the request, plans have none.
    """

    device: str = "cpu"
    device_index: int = 0
    threads: int | None = None
    cuda_graphs: bool = True
    provider: Provider = "cuda"
    layer_times: Path | None = None


class Session(Protocol):
    """An engine ready to run. Calls from several threads are safe.

    Attributes
    ----------
    max_group : largest group compiled into the engine; None where the group axis is free and memory is the limit.
    """

    max_group: int | None

    def infer(self, inputs: Tensors) -> Tensors:
        """Map `images` (N, 3, S, S) float32 to `maps` (N, 1, S, S) float32 in [0, 1]."""


@runtime_checkable
class GraphSession(Session, Protocol):
    """A session that also runs the parts that its bundle's engine is cut into, by name.

    Attributes
    ----------
    graphs : those it has.
    """

    graphs: frozenset[str]

    def run(self, graph: str, inputs: PartTensors) -> PartTensors:
        """Run one graph. Tensors are (n, …) of n photos but for `consensus` (1, C, 1, 1).

        They are float32; `INNER_TENSORS` may also be uint16, the bits of bfloat16, where the engine computes in that:
        nothing is lost, and nothing converted on the way.

        | graph | takes | gives |
        | --- | --- | --- |
        | detect | images | maps |
        | consensus | images | consensus, attention |
        | segment | images, consensus | maps |
        | encode | images | features, query, pixel_bias, lateral_2, lateral_3, lateral_4 |
        | agree | query (q, C, h, w), features (n, C, h, w) | best_match (q, n, h·w) |
        | pool | features, attention | consensus |
        | draw | images, features, lateral_2, lateral_3, lateral_4, consensus | maps |

        In a network without GAM there are no query, pixel_bias and attention, and no graph `agree`.

        Raises
        ------
        BundleError
            If the bundle's graph is damaged.
        TargetError
            If the engine fails.
        """


@runtime_checkable
class IntoSession(Session, Protocol):
    """A session that also writes its answer where the caller wants it."""

    def run_into(self, graph: str, inputs: Tensors, outputs: Tensors) -> None:
        """Run one graph, as `GraphSession.run` does, from and to the caller's memory.

        In steady state, as many photos as in one of the last calls, nothing is allocated. No array is held on to after
        the call.

        Parameters
        ----------
        inputs, outputs : C-contiguous, aligned, float32, of the graph's shapes; outputs are all it gives, and writable.

        Raises
        ------
        BundleError
            If the bundle has no such graph, or a damaged one.
        TargetError
            If the engine fails.
        """


@runtime_checkable
class DeviceSession(Session, Protocol):
    """A session that also takes and gives arrays on its GPU, without a copy."""

    def infer_device(
        self, inputs: Mapping[str, object], outputs: Mapping[str, object] | None = None
    ) -> Mapping[str, DeviceArray]:
        """Run one group on arrays that lie on the GPU.

        Parameters
        ----------
        inputs : `images` (N, 3, S, S) float32, C-contiguous; of any library that speaks DLPack or
            `__cuda_array_interface__` (PyTorch, CuPy, PyCUDA). It must not be written to before the answer is there.
        outputs : `maps` (N, 1, S, S) float32 to write to; None for new memory.

        Returns
        -------
        `maps`, perhaps still being computed; see `DeviceArray`.

        Raises
        ------
        UsageError
            If an array is not as above or lies elsewhere, the group is too large, or the session runs on the CPU.
        TargetError
            If the engine fails.
        """


def open_session(
    bundle: Bundle, device: str, threads: int | None, cuda_graphs: bool = True, provider: str = "cuda"
) -> Session:
    """Load a bundle's engine; for the arguments see `SessionOptions`, `device` is as in `load`.

    Raises
    ------
    TargetError
        If this machine, or this version of the runtime, cannot run the bundle's target.
    UsageError
        If there is no such provider.
    """
    target = bundle.manifest.target
    if target not in SESSIONS:
        raise TargetError(f"{bundle.folder} cannot run here: {why_not_runnable(target)}")
    if provider not in ("cuda", "tensorrt"):
        raise UsageError(f"ONNX Runtime's provider is cuda or tensorrt, not {provider!r}")
    kind, index = _parse_device(target, device)
    options = SessionOptions(kind, index, threads, cuda_graphs, cast(Provider, provider))
    module, _, name = SESSIONS[target].partition(":")
    start = time.perf_counter()
    session: Session = getattr(importlib.import_module(module), name)(bundle, options)
    LOG.info(
        "engine %s on %s, threads: %s, largest group in one call: %s; loaded in %.0f ms",
        target,
        kind if kind == "cpu" else f"{kind}:{index}",
        "the engine's choice" if threads is None else threads,
        "as memory allows" if session.max_group is None else session.max_group,
        1e3 * (time.perf_counter() - start),
    )
    return session


def runs_on_gpu(target: str, device: str) -> bool:
    """Whether engines of `target` run on a GPU where `load` is given `device`; errors as for `open_session`."""
    if target not in SESSIONS:
        raise TargetError(f"a bundle cannot run here: {why_not_runnable(target)}")
    return _parse_device(target, device)[0] == "cuda"


def why_not_runnable(target: str) -> str | None:
    """None if engines of `target` can run here, else what is missing and what to do; loads libraries to find out."""
    if target not in SESSIONS:
        return f"target {target!r} is unknown to this version: update gconet-deploy"
    if target.startswith("tensorrt"):
        from gconet.runtime.tensorrt_engine import open_gpu

        try:
            open_gpu(cast("Product", target), 0)
        except TargetError as error:
            return f"a {target} plan needs an NVIDIA GPU and its libraries: {error}"
    return None


def _parse_device(target: str, device: str) -> tuple[str, int]:
    kinds = DEVICES[target]
    if device == "auto":
        return kinds[0], 0
    match = re.fullmatch(r"(cpu)|(cuda)(?::(\d+))?", device)
    kind = (match[1] or match[2]) if match else None
    if match and kind in kinds:
        return kind, int(match[3] or 0)
    *others, last = ["auto", *(name for kind in kinds for name in ((kind, "cuda:N") if kind == "cuda" else (kind,)))]
    mend = "; for a GPU, build with `gconet build --target tensorrt`" if kind == "cuda" else ""
    raise TargetError(f"target {target} runs on device {', '.join(others)} or {last}, not {device!r}{mend}")
