"""Other runtimes on the un-optimised export of the reference network, with the settings their manuals start with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gconet.bench.peers import Infer, PeerRequest
from gconet.engines.installed import import_or_explain
from gconet.runtime.errors import TargetError
from gconet.runtime.openvino_session import CAPABILITY, DEVICE, HINTS
from gconet.runtime.preprocess import FloatArray

Opener = Callable[[Path], Infer]


class PlainEngine:
    """An engine for one group size at a time, loaded anew when another size comes."""

    def __init__(self, request: PeerRequest, open_graph: Opener) -> None:
        self._request, self._open = request, open_graph
        self._loaded: tuple[int, Infer] | None = None

    def __call__(self, images: FloatArray) -> FloatArray:
        """Maps (N, 1, S, S) of a group (N, 3, S, S)."""
        group = len(images)
        if self._loaded is None or self._loaded[0] != group:
            self._loaded = None  # its memory first
            self._loaded = group, self._open(self._graph(group, images.shape[-1]))
        return self._loaded[1](images)

    def _graph(self, group: int, size: int) -> Path:
        path = self._request.graphs / f"reference-{group}.onnx"
        if not path.exists():
            from gconet.bench.eager import peer_network  # torch, which a process that finds the graph never loads
            from gconet.bench.plain_graph import export_plain

            export_plain(peer_network(self._request), size, group, path)
        return path


def onnxruntime_fp32(request: PeerRequest) -> Infer:
    """ONNX Runtime's CPU provider with its default optimisations; raises TargetError if it is not installed."""
    return PlainEngine(request, onnxruntime_opener(request.threads))


def openvino_fp32(request: PeerRequest) -> Infer:
    """OpenVINO's CPU plugin; raises TargetError if it is not installed."""
    return PlainEngine(request, openvino_opener("fp32", request.threads))


def openvino_bf16(request: PeerRequest) -> Infer:
    """The same with its bf16 hint; raises TargetError also where its plugin knows no bf16 on this CPU."""
    return PlainEngine(request, openvino_opener("bf16", request.threads))


def onnxruntime_opener(threads: int | None = None) -> Opener:
    """What opens a graph `images` → `maps` of one group size in ONNX Runtime, fp32."""
    ort = import_or_explain("onnxruntime", ("onnxruntime",))

    def open_graph(path: Path) -> Infer:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def infer(images: FloatArray) -> FloatArray:
            (maps,) = session.run(["maps"], {"images": images})
            return np.asarray(maps, np.float32)

        return infer

    return open_graph


def openvino_opener(precision: str, threads: int | None = None) -> Opener:
    """The same in OpenVINO."""
    ov = import_or_explain("openvino", ("openvino",))
    core = ov.Core()
    if CAPABILITY.get(precision, "FP32") not in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"):
        raise TargetError(f"OpenVINO reports no {precision} arithmetic on this CPU")
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    settings |= {"INFERENCE_NUM_THREADS": threads} if threads else {}

    def open_graph(path: Path) -> Infer:
        request = core.compile_model(core.read_model(path), DEVICE, settings).create_infer_request()

        def infer(images: FloatArray) -> FloatArray:
            request.infer({"images": images}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, np.float32)

        return infer

    return open_graph
