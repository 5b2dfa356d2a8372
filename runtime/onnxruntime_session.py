"""ONNX Runtime on the CPU."""

from __future__ import annotations

from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import BundleError, TargetError, one_line
from gconet.runtime.session import Tensors

PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeSession:
    """Runs a bundle's `.onnx` artefact; safe to call from several threads."""

    max_group = None

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        try:
            import onnxruntime as ort
        except (ImportError, OSError) as error:
            raise TargetError(f"onnxruntime cannot be imported ({one_line(error)}): pip install onnxruntime") from error
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings about unused initialisers help nobody
        if threads is not None:
            options.intra_op_num_threads = threads
        path = bundle.file(".onnx")
        try:
            self._session = ort.InferenceSession(path, options, providers=[PROVIDER])
        except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
            raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {path}: {one_line(error)}") from error

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one group; see `Session`."""
        try:
            return {"maps": self._session.run(["maps"], dict(inputs))[0]}
        except Exception as error:  # its own classes, as above
            count = len(inputs["images"])
            raise TargetError(f"ONNX Runtime cannot run a group of {count} photos: {one_line(error)}") from error
