"""Plans built for tests: fixtures `half_graph`, `rtx` and `tensorrt_by_rtx`, and small graphs."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from conftest import TINY_SIZE, require_tensorrt_rtx
from onnx import numpy_helper

from gconet.engines import tensorrt_builder
from gconet.engines.plan_options import PlanOptions, Profile
from gconet.engines.target import EngineSpec
from gconet.engines.tensorrt_config import Job
from gconet.engines.tensorrt_gpu import Gpu
from gconet.engines.tensorrt_products import TENSORRT, TENSORRT_RTX, load
from gconet.export.to_onnx import export_detect
from gconet.runtime.tensorrt_library import collecting_logger
from gconet.train.model import GCoNet

ONE_PROFILE = PlanOptions(profiles=(Profile(1, 2, 4),))  # three cost three times the time
CAPABILITIES = ("7.5", "8.6", "8.9", "12.0")
ADA = Gpu("NVIDIA L4", "8.9")


@pytest.fixture(scope="session")
def half_graph(tiny_network: GCoNet) -> onnx.ModelProto:
    """The tiny network in half precision, equalised on noise."""
    noise = np.random.default_rng(0).standard_normal((3, 3, TINY_SIZE, TINY_SIZE), np.float32)
    return export_detect(tiny_network, TINY_SIZE, "fp16", [noise])


@pytest.fixture
def rtx() -> ModuleType:
    """TensorRT for RTX, which builds without a GPU."""
    require_tensorrt_rtx()
    return load(TENSORRT_RTX)


@pytest.fixture
def tensorrt_by_rtx(rtx: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[EngineSpec], Job]:
    """Jobs for TensorRT, as on a machine with an L4, but built by TensorRT for RTX, whose interface is the same."""
    monkeypatch.setattr(tensorrt_builder, "load", lambda _product: rtx)
    monkeypatch.setattr(tensorrt_builder, "_inspect", lambda *_: None)  # opening a plan takes a GPU
    return lambda spec: Job(TENSORRT, spec, (ADA,))


def read_network(trt: ModuleType, graph: onnx.ModelProto) -> tuple[Any, ...]:
    """A network definition, after what must outlive it."""
    logger, _ = collecting_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(graph.SerializeToString())
    return logger, parser, builder, network


def quantised_graph(activations: bool = True) -> onnx.ModelProto:
    """A convolution 8→8 with 3×3 weights in int8 by Q/DQ, the images too or not; then one 8→4 with 1×1 in float."""
    rng = np.random.default_rng(0)
    arrays = {
        "weights": rng.integers(-127, 127, (8, 8, 3, 3), np.int8),
        "scales": np.full(8, 0.01, np.float32),
        "scale": np.float32(0.02),
        "zero": np.int8(0),
        "last": rng.standard_normal((4, 8, 1, 1)).astype(np.float32),
    }
    quantise = [
        oh.make_node("QuantizeLinear", ["images", "scale", "zero"], ["rounded"]),
        oh.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["data"]),
    ]
    nodes = [
        *(quantise if activations else [oh.make_node("Relu", ["images"], ["data"])]),
        oh.make_node("DequantizeLinear", ["weights", "scales"], ["kernel"], axis=0),
        oh.make_node("Conv", ["data", "kernel"], ["features"], pads=[1, 1, 1, 1]),
        oh.make_node("Conv", ["features", "last"], ["maps"]),
    ]
    inputs, outputs = (
        [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["group", channels, 16, 16])]
        for name, channels in (("images", 8), ("maps", 4))
    )
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = oh.make_graph(nodes, "quantised", inputs, outputs, tensors)
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)])
