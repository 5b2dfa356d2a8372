"""A bundle as a Triton model repository: what the configurations say, and that the files answer as the bundle does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from conftest import TINY, TINY_MAX_GROUP, TINY_SIZE
from google.protobuf import text_format
from triton_stand_in import Model, parameters, read_config
from tritonclient.grpc import model_config_pb2

import gconet.runtime as gr
from gconet.engines.registry import get_target
from gconet.engines.triton_config import ServingOptions, to_text
from gconet.engines.triton_repository import write_repository
from gconet.runtime.preprocess import Preprocessing
from gconet.runtime.session import GraphSession

Bundles = Callable[[str, str], Path]
SERVED = [("onnxruntime", "fp32"), ("openvino", "bf16"), ("openvino", "int8"), ("openvino", "fp32")]
CHANNELS, C5 = TINY.encoder_channels[-1], TINY_SIZE // 16
IMAGES, MAPS = ("images", [-1, 3, TINY_SIZE, TINY_SIZE]), ("maps", [-1, 1, TINY_SIZE, TINY_SIZE])
CONSENSUS, ATTENTION = ("consensus", [1, CHANNELS, 1, 1]), ("attention", [-1, 1, C5, C5])
TABLE = {
    "detect": ([IMAGES], [MAPS]),
    "consensus": ([IMAGES], [CONSENSUS, ATTENTION]),
    "segment": ([IMAGES, CONSENSUS], [MAPS]),
}


@pytest.fixture(scope="module")
def repository(tiny_bundle: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Repositories of the tiny bundles, written once."""
    written: dict[tuple[str, str], Path] = {}

    def make(target: str, precision: str) -> Path:
        if (target, precision) not in written:
            folder = tmp_path_factory.mktemp("models")
            names = write_repository(gr.open_bundle(tiny_bundle(target, precision)), folder, ServingOptions())
            assert names == [f"gconet_{graph}" for graph in TABLE]
            written[target, precision] = folder
        return written[target, precision]

    return make


@pytest.mark.parametrize(("target", "precision"), SERVED)
@pytest.mark.parametrize("graph", TABLE)
def test_a_configuration_declares_the_graph_and_one_group_a_request(
    target: str, precision: str, graph: str, repository: Bundles
) -> None:
    config = read_config(repository(target, precision) / f"gconet_{graph}")
    assert (config.name, config.backend, config.platform) == (f"gconet_{graph}", target, "")
    for declared, expected in zip((config.input, config.output), TABLE[graph], strict=True):
        assert [(entry.name, list(entry.dims)) for entry in declared] == expected
        assert {entry.data_type for entry in declared} == {model_config_pb2.TYPE_FP32}
    assert config.max_batch_size == 0
    assert config.WhichOneof("scheduling_choice") is None  # neither dynamic_batching nor another that joins requests
    assert not config.HasField("version_policy")
    (group,) = config.instance_group
    assert (group.kind, group.count, list(group.profile)) == (group.KIND_CPU, 1, [])
    (warm_up,) = config.model_warmup
    assert warm_up.batch_size == 1
    assert {name: list(entry.dims) for name, entry in warm_up.inputs.items()} == {
        name: [TINY_MAX_GROUP if size == -1 else size for size in dims] for name, dims in TABLE[graph][0]
    }
    assert all(entry.zero_data and entry.data_type == model_config_pb2.TYPE_FP32 for entry in warm_up.inputs.values())
    told = parameters(config)
    assert Preprocessing.from_dict(json.loads(told["preprocessing"])) == Preprocessing(TINY_SIZE)
    assert (told["precision"], told["max_group"]) == (precision, str(TINY_MAX_GROUP))


@pytest.mark.parametrize(("target", "precision"), SERVED)
@pytest.mark.parametrize("graph", TABLE)
def test_model_files_answer_as_the_bundle_does(
    target: str,
    precision: str,
    graph: str,
    repository: Bundles,
    tiny_bundle: Bundles,
    rng: np.random.Generator,
) -> None:
    if problem := get_target(target).runs_here(precision):
        pytest.skip(problem)
    session = gr.load(tiny_bundle(target, precision)).session
    assert isinstance(session, GraphSession)
    # An fp32 IR would be computed in bf16 where the CPU can: there is no parameter against it.
    exact = {"INFERENCE_PRECISION_HINT": "f32"} if (target, precision) == ("openvino", "fp32") else {}
    model = Model(repository(target, precision) / f"gconet_{graph}", **exact)
    for count in (1, 2, 5):
        inputs = {
            name: rng.standard_normal([count if size == -1 else size for size in dims]).astype(np.float32)
            for name, dims in TABLE[graph][0]
        }
        served, expected = model.infer(inputs), session.run(graph, inputs)
        assert set(served) == set(expected)
        for name, answer in expected.items():
            assert served[name].shape == answer.shape
            difference = np.abs(served[name] - answer)
            if precision == "fp32":
                assert difference.max() <= 1e-6, name
            else:  # the session compiles for each group size, which rounds to bf16, and then to int8, in other places
                assert difference.mean() < 5e-3, name
                assert difference.max() < 0.1, name


def test_the_request_of_warm_up_runs(repository: Bundles) -> None:
    for folder in repository("onnxruntime", "fp32").iterdir():
        model = Model(folder)
        (warm_up,) = model.config.model_warmup
        inputs = {
            entry.name: np.zeros(list(warm_up.inputs[entry.name].dims), np.float32) for entry in model.config.input
        }
        assert all(np.isfinite(answer).all() for answer in model.infer(inputs).values())


def test_openvino_is_told_of_bf16_only_where_the_bundle_is(repository: Bundles) -> None:
    hints = {
        precision: parameters(read_config(repository("openvino", precision) / "gconet_detect")).get("HINT_BF16")
        for precision in ("fp32", "bf16", "int8")
    }
    assert hints == {"fp32": None, "bf16": "YES", "int8": None}


def test_the_ir_names_no_batch_axis_that_the_backend_would_fill_in(repository: Bundles) -> None:
    """Its auto-completion sets max_batch_size where the layouts of all tensors have a batch."""
    for folder in repository("openvino", "bf16").iterdir():
        model = ov.Core().read_model(folder / "1" / "model.xml")
        assert not any(ov.layout_helpers.get_layout(port).has_name("N") for port in [*model.inputs, *model.outputs])


@pytest.mark.parametrize(
    ("target", "precision", "expected"),
    [
        ("onnxruntime", "fp32", {"intra_op_thread_count": "2"}),
        ("openvino", "bf16", {"NUM_STREAMS": "3", "INFERENCE_NUM_THREADS": "6"}),  # of all instances together
    ],
)
def test_instances_and_their_threads(
    target: str, precision: str, expected: dict[str, str], tiny_bundle: Bundles, tmp_path: Path
) -> None:
    options = ServingOptions("m", instances=3, threads=2)
    write_repository(gr.open_bundle(tiny_bundle(target, precision)), tmp_path, options)
    config = read_config(tmp_path / "m_detect")
    assert config.instance_group[0].count == 3
    assert parameters(config).items() >= expected.items()
    inputs = {"images": np.zeros((2, 3, TINY_SIZE, TINY_SIZE), np.float32)}
    assert Model(tmp_path / "m_detect").infer(inputs)["maps"].shape == (2, 1, TINY_SIZE, TINY_SIZE)


def test_onnx_runtime_on_gpus_keeps_fp32(tiny_bundle: Bundles, tmp_path: Path) -> None:
    write_repository(gr.open_bundle(tiny_bundle("onnxruntime", "fp32")), tmp_path, ServingOptions(device="cuda"))
    config = read_config(tmp_path / "gconet_detect")
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})


def test_strings_survive_the_text_format() -> None:
    text = to_text(
        {"name": 'a "b" \\ c', "max_batch_size": 3, "input": [], "model_operations": {"op_library_filename": ["x"]}}
    )
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.max_batch_size) == ('a "b" \\ c', 3)
    assert list(config.model_operations.op_library_filename) == ["x"]
