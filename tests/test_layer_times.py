"""Times of single calls from an engine's counters and traces, kinds of layers, arithmetic, shares, medians."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from gconet.bench.layer_profile import make_rows
from gconet.bench.layer_times import ExecutedLayer, Tensor, count_flop, kind_of
from gconet.bench.onnxruntime_layers import GraphNames, executed_layers
from gconet.bench.openvino_layers import each_call
from gconet.bench.roofline import Rate, Roofline

MACHINE = Roofline({"bf16": Rate(100.0, "tests"), "int8": Rate(400.0, "tests")}, copy_gb_per_s=10.0)


def layer(precision: str, flop: int, size: int, samples: Sequence[float]) -> ExecutedLayer:
    return ExecutedLayer("name", "node", "convolution", "kernel", precision, flop, size, samples)


def test_single_calls_come_back_from_means_in_whole_microseconds(rng: np.random.Generator) -> None:
    microseconds = rng.integers(0, 5000, 30).tolist()
    means = [total // count for count, total in enumerate(accumulate(microseconds), start=1)]  # as OpenVINO counts
    found = each_call(means)
    for call, (was, is_) in enumerate(zip(microseconds, found, strict=True), start=1):
        assert abs(was - is_) < call


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("Convolution", "convolution"),
        ("QLinearConv", "convolution"),
        ("Interpolate", "resize"),
        ("MaxPool", "pooling"),
        ("NhwcMaxPool", "pooling"),
        ("QLinearMatMul", "affinity"),
        ("Softmax", "affinity"),
        ("ReorderOutput", "reorder"),
        ("Transpose", "reorder"),
        ("QuantizeLinear", "convert"),
        ("Cast", "convert"),
        ("QLinearAdd", "elementwise"),
        ("Subgraph", "elementwise"),
        ("Shape", "other"),
    ],
)
def test_kinds(operation: str, kind: str) -> None:
    assert kind_of(operation) == kind


def test_arithmetic_is_counted_from_shapes() -> None:
    image, weights, out = (Tensor(shape, "u8") for shape in ((2, 3, 8, 8), (5, 3, 3, 3), (2, 5, 8, 8)))
    scale = Tensor((), "fp32")
    expected = 2 * (3 * 9) * (2 * 5 * 8 * 8)
    assert count_flop("Convolution", [image, weights, Tensor((5,), "fp32")], out) == expected
    assert count_flop("QLinearConv", [image, scale, scale, weights, scale], out) == expected
    rows, columns = Tensor((1, 2, 4, 6), "fp32"), Tensor((2, 1, 6, 7), "fp32")
    assert count_flop("MatMul", [rows, columns], Tensor((2, 2, 4, 7), "fp32")) == 2 * 6 * (2 * 2 * 4 * 7)
    assert count_flop("ReduceMax", [rows, columns], rows) == 0


def test_bytes_of_a_tensor_follow_its_type() -> None:
    assert [Tensor((2, 3), name).bytes for name in ("fp32", "bf16", "u8", "i64", "unheard of")] == [24, 12, 6, 48, 24]


def test_rows_are_medians_and_shares_of_the_slower_limit() -> None:
    computing = layer("bf16", 10**9, 10**6, [20.0, 100.0, 10.0])  # 10 ms at 100 GFLOP/s, 0.1 ms to move
    moving = layer("fp32→bf16", 0, 10**8, [40.0, 20.0, 10.0])  # 10 ms at 10 GB/s
    integers = layer("u8→bf16", 2 * 10**9, 0, [20.0, 20.0, 20.0])  # 5 ms at 400 GFLOP/s
    unknown = layer("fp32", 10**9, 0, [20.0])
    below = layer("bf16", 10**9, 0, [-0.1, 0.0, -0.2])  # a coarse counter of next to nothing
    rows = make_rows([computing, moving, integers, unknown, below], MACHINE)
    assert [row.ms for row in rows] == [20, 20, 20, 20, 0]
    assert [row.share for row in rows] == [0.25, 0.25, 0.25, 0.25, 0]
    assert [row.gflops for row in rows] == [50, None, 100, 50, None]
    assert [row.share_of_roofline for row in rows] == [0.5, 0.5, 0.25, None, None]
    assert all(row.share_of_roofline is None for row in make_rows([computing, moving], "not asked for"))


def test_a_trace_is_read_call_by_call_leaving_the_warm_up_out() -> None:
    def node(name: str, start: int, length: int, operation: str, types: Sequence[str]) -> dict[str, Any]:
        given, made = ({kind: [2, 4]} for kind in types)
        facts = {"op_name": operation, "provider": "CPUExecutionProvider", "input_type_shape": [given],
                 "output_type_shape": [made]}  # fmt: skip
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": length, "args": facts}

    events: list[dict[str, Any]] = [{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 5, "args": {}}]
    for run, length in enumerate((900, 40, 20)):
        start = 1000 * run + 10
        events.append({"cat": "Session", "name": "model_run", "ts": start, "dur": 990, "args": {}})
        events.append(node("relu_1_nchwc", start, length, "Conv", ("float", "float")))
        events.append(node("Quantize_7", start + length, 10, "QuantizeLinear", ("float", "uint8")))
        events.append(node("Quantize_7", start + length + 10, 10, "QuantizeLinear", ("float", "uint8")))
    names = GraphNames({"relu_1": "encoder.conv1.conv1_1"}, {"encoder.conv1.conv1_1": (4, 3, 3, 3)})
    first, second = executed_layers(json.loads(json.dumps(events[::-1])), names, calls=2)
    assert (first.name, first.node, first.kernel) == ("encoder.conv1.conv1_1", "relu_1_nchwc", "CPU Conv blocked")
    assert first.samples_ms == [0.04, 0.02]
    assert first.flop == 2 * (3 * 9) * (2 * 4)  # the trace does not tell the shape of packed weights, the graph does
    assert (second.name, second.kind, second.precision) == ("Quantize_7", "convert", "fp32→u8")
    assert second.samples_ms == [0.02, 0.02]
    assert second.bytes == 8 * 5


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("encoder.conv4.conv4_2", "winograd"),
        ("MatMul(encoder.conv4.conv4_2)", "winograd"),
        ("MatMul(encoder.conv5.conv5_3, gam.query)", "affinity"),
        ("MatMul_17", "affinity"),
    ],
)
def test_a_matrix_product_of_the_encoder_is_a_convolution_in_winograds_form(name: str, kind: str) -> None:
    assert kind_of("MatMul", name) == kind
    assert kind_of("Convolution", name) == "convolution"
