"""Names and shapes of a model's inputs and outputs, read from its file by the library of Triton's backend for it.

A file that the library refuses is found here, and not by a server.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gconet.engines.installed import import_or_explain
from gconet.engines.onnxruntime_target import PROVIDER
from gconet.engines.triton_config import GROUP_AXIS, Signature, Tensor
from gconet.runtime.bundle import REBUILD, Bundle
from gconet.runtime.errors import BundleError, one_line


def onnx_signature(path: Path, bundle: Bundle) -> Signature:
    """The signature of `model.onnx`; raises TargetError without ONNX Runtime, BundleError if that cannot load it."""
    ort = import_or_explain("onnxruntime", ("onnxruntime",))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # nothing is run here
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(path, options, providers=[PROVIDER])
    except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
        raise _refused(f"ONNX Runtime {ort.__version__}", bundle, path, one_line(error)) from error
    inputs, outputs = (
        tuple(_tensor(value.name, value.shape) for value in values)
        for values in (session.get_inputs(), session.get_outputs())
    )
    return Signature(inputs, outputs)


def openvino_signature(path: Path, bundle: Bundle) -> Signature:
    """The signature of `model.xml`; raises TargetError without OpenVINO, BundleError if that cannot load it."""
    ov = import_or_explain("openvino", ("openvino",))
    try:
        model = ov.Core().read_model(path)  # with the weights of that name, as Triton's backend does
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]  # the lines before are places in OpenVINO's own source
        raise _refused(f"OpenVINO {ov.__version__}", bundle, path, reason) from error
    inputs, outputs = (
        tuple(_tensor(port.get_any_name(), map(_length, port.partial_shape)) for port in ports)
        for ports in (model.inputs, model.outputs)
    )
    return Signature(inputs, outputs)


def plan_signature(path: Path, bundle: Bundle) -> Signature:  # noqa: ARG001 (only a GPU opens a plan)
    """The signature of every plan of ours, which has the one graph `detect`."""
    size = bundle.manifest.preprocessing.size
    images, maps = (Tensor(name, (GROUP_AXIS, channels, size, size)) for name, channels in (("images", 3), ("maps", 1)))
    return Signature((images,), (maps,))


def _length(size: Any) -> int | None:
    return None if size.is_dynamic else int(size.get_length())


def _refused(library: str, bundle: Bundle, path: Path, reason: str) -> BundleError:
    return BundleError(f"{library} cannot load {path.name} of {bundle.folder}: {reason[:200]}: {REBUILD}")


def _tensor(name: str, sizes: Iterable[object]) -> Tensor:
    """Sizes that are not known before there is a group are names in ONNX, None from OpenVINO."""
    return Tensor(name, tuple(size if isinstance(size, int) else GROUP_AXIS for size in sizes))
