"""A stand-in for Triton Inference Server: reads a model repository by the backends' rules, and answers over gRPC.

Not the server: what it knows of config.pbtxt is protobuf's definition of it, and what the backends' sources do with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
import openvino as ov
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

Arrays = Mapping[str, np.ndarray]


def read_config(model: Path) -> Any:
    """A model's `config.pbtxt` as Triton parses it: a field that the server does not know is an error."""
    return text_format.Parse((model / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())


def parameters(config: Any) -> dict[str, str]:
    """The `parameters` of a model."""
    return {key: value.string_value for key, value in config.parameters.items()}


def openvino_properties(config: Any) -> dict[str, Any]:
    """What the openvino backend makes of its parameters; it knows these, and nothing of other properties."""
    given = parameters(config)
    properties: dict[str, Any] = {"PERFORMANCE_HINT": given["PERFORMANCE_HINT"].upper(), "ALLOW_AUTO_BATCHING": False}
    for key in ("NUM_STREAMS", "INFERENCE_NUM_THREADS"):
        if key in given:
            properties[key] = int(given[key])
    if given.get("HINT_BF16", "").lower() == "yes":
        properties["INFERENCE_PRECISION_HINT"] = "bf16"
    return properties


class Model:
    """One model of a repository, run by the library of its backend."""

    def __init__(self, folder: Path, **properties: Any) -> None:
        self.config = read_config(folder)
        version = folder / "1"
        assert self.config.name == folder.name
        if self.config.backend == "onnxruntime":
            options = ort.SessionOptions()
            options.intra_op_num_threads = int(parameters(self.config).get("intra_op_thread_count", 0))
            self._session = ort.InferenceSession(version / "model.onnx", options, providers=["CPUExecutionProvider"])
        else:
            model = ov.Core().read_model(version / "model.xml")
            self._compiled = ov.Core().compile_model(model, "CPU", {**openvino_properties(self.config), **properties})

    def infer(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The outputs by name, after the server's own check of the request."""
        assert list(inputs) == [entry.name for entry in self.config.input]
        for entry in self.config.input:
            shape = inputs[entry.name].shape
            assert len(shape) == len(entry.dims)
            assert all(size in (given, -1) for given, size in zip(shape, entry.dims, strict=True))
        names = [entry.name for entry in self.config.output]
        if self.config.backend == "onnxruntime":
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        answers = self._compiled(dict(inputs))
        return {name: np.array(answers[name]) for name in names}


class _Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self, repository: Path) -> None:
        self._models = {folder.name: Model(folder) for folder in repository.iterdir()}

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 (gRPC's names)
        return service_pb2.ModelConfigResponse(config=self._models[request.name].config)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        arrays = {
            entry.name: np.frombuffer(raw, np.float32).reshape(list(entry.shape))
            for entry, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        for name, array in self._models[request.model_name].infer(arrays).items():
            response.outputs.add(name=name, datatype="FP32", shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response


@contextlib.contextmanager
def serving(repository: Path) -> Iterator[str]:
    """Answer requests for a repository's models; the address, host:port."""
    unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]  # as Triton has it
    server = grpc.server(ThreadPoolExecutor(1), options=unlimited)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Service(repository), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
