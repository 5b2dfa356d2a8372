"""ONNX Runtime on the CPU."""

from __future__ import annotations

from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import BundleError, TargetError
from gconet.runtime.session import Tensors

PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeSession:
    """Runs a bundle's `.onnx` artefact; safe to call from several threads."""

    max_group = None

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise TargetError(f"onnxruntime cannot be imported ({error}): pip install onnxruntime") from error
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings about unused initialisers help nobody
        if threads is not None:
            options.intra_op_num_threads = threads
        path = bundle.file(".onnx")
        try:
            self._session = ort.InferenceSession(path, options, providers=[PROVIDER])
        except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
            reason = str(error).splitlines()[0]
            raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {path}: {reason}") from error

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one group; see `Session`."""
        return {"maps": self._session.run(["maps"], dict(inputs))[0]}
