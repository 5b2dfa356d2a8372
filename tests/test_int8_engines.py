"""INT8 engines: they multiply integers, agree with the network, and the command that builds them says what it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from conftest import TINY_SIZE, require_tensorrt_rtx
from shapes import make_data

from gconet.bench.parity_statistics import compare
from gconet.bench.reference import eager_maps
from gconet.bench.tolerances import TOLERANCES
from gconet.engines.registry import get_target
from gconet.engines.target import EngineSpec
from gconet.export import build_engine
from gconet.export.graphs import TAKES_UNSIGNED, make_graph
from gconet.export.quantisation_islands import int8_layers
from gconet.export.quantise import prepare
from gconet.export.sensitivity_judge import Judge, read_judged_groups
from gconet.export.sensitivity_sweep import Bench
from gconet.runtime import load, open_bundle
from gconet.runtime.command_line import run
from gconet.runtime.errors import TargetError
from gconet.runtime.photos import read_photo
from gconet.runtime.preprocess import Photo, Preprocessing, to_input
from gconet.runtime.session import open_session
from gconet.train.checkpoint import SHIPPED, Checkpoint, read_checkpoint, save_checkpoint
from gconet.train.model import GCoNet

Bundles = Callable[[str, str], Path]


# Engines


@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
def test_engines_run_it_in_int8_and_agree(
    target: str, tiny_bundle: Bundles, tiny_network: GCoNet, example_photos: list[Photo]
) -> None:
    images = to_input(example_photos[:5], Preprocessing(TINY_SIZE))
    session = load(tiny_bundle(target, "int8")).session
    row = compare(
        eager_maps(tiny_network, images), session.infer({"images": images})["maps"], TOLERANCES[target, "int8"]
    )
    assert row.mean_abs > 1e-4  # not the fp32 graph under another name
    assert row.passed, row


def test_onnxruntime_multiplies_integers(tiny_bundle: Bundles, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # what a session fuses
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    artefact = open_bundle(tiny_bundle("onnxruntime", "int8")).file("detect.onnx")
    ort.InferenceSession(artefact, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "fused.onnx", load_external_data=False).graph.node]
    assert kinds.count("QLinearConv") >= 20  # those whose output goes to another rounding, not to a sum


def test_openvino_multiplies_integers(tiny_bundle: Bundles, tiny_checkpoint: Checkpoint) -> None:
    import openvino as ov

    bundle = open_bundle(tiny_bundle("openvino", "int8"))
    model = ov.Core().read_model(bundle.file("detect.xml"), bundle.file("weights.bin"))
    model.reshape([5, 3, TINY_SIZE, TINY_SIZE])
    types = [
        operation.get_rt_info()["runtimePrecision"].astype(str)
        for operation in ov.Core().compile_model(model, "CPU").get_runtime_model().get_ops()
        if operation.get_rt_info()["layerType"].astype(str) == "Convolution"
    ]
    graph = make_graph(tiny_checkpoint, "int8", get_target("openvino"), None).graph
    quantised = [tensor for tensor in graph.initializer if tensor.name.endswith(".weight_quantized")]
    assert len([name for name in types if name in ("i8", "u8")]) == len(quantised) == 29


def test_onnxruntime_does_not_take_it_to_a_gpu_that_would_hand_it_back(tiny_bundle: Bundles) -> None:
    bundle = open_bundle(tiny_bundle("onnxruntime", "int8"))
    with pytest.raises(TargetError, match="runs on the CPU only: for a GPU, `gconet build --target tensorrt"):
        open_session(bundle, "cuda", None)


def test_tensorrt_rtx_takes_the_signed_graph(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    require_tensorrt_rtx()
    target = get_target("tensorrt-rtx")
    paths = target.build(make_graph(tiny_checkpoint, "int8", target, None), EngineSpec("int8", 4), tmp_path)
    assert any(path.suffix == ".plan" and path.stat().st_size > 0 for path in paths)


# The command


def test_a_build_in_int8_calibrates_on_the_folder_given(
    tiny_checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make_data(tmp_path / "data") / "images"
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.safetensors")
    arguments = ["--checkpoint", str(tmp_path / "tiny.safetensors"), "--target", "onnxruntime", "--precision", "int8"]
    out = tmp_path / "int8.gconet"
    common = [*arguments, "--max-group", "3", "--calibration", str(photos), "--out", str(out), "--allow-parity-failure"]
    assert run(build_engine.main, common) == 0
    assert open_bundle(out).manifest.precision == "int8"
    assert "% int8" in capsys.readouterr().out


def test_calibration_photos_that_cannot_be_read_are_one_line(
    tiny_checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.safetensors")
    photo = tmp_path / "photos" / "cats" / "torn.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"\xff\xd8\xff\xe0 no more")
    arguments = ["--checkpoint", str(tmp_path / "tiny.safetensors"), "--target", "openvino", "--precision", "int8"]
    out = tmp_path / "int8.gconet"
    assert run(build_engine.main, [*arguments, "--calibration", str(photo.parents[1]), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "torn.jpg" in line
    assert not out.exists()


# The real thing


@pytest.mark.slow
def test_the_shipped_weights_keep_their_maps_on_groups_that_calibration_did_not_see(shared: Path) -> None:
    data = shared / "data"
    judged = ["VOC10CoSeg/Sheep", "COCO256/elephant", "COCO256/umbrella", "DAVIS16val/cows"]
    checkpoint = read_checkpoint(SHIPPED)
    model, preprocessing = checkpoint.network(), checkpoint.info.preprocessing
    names = sorted(path.relative_to(data / "images").as_posix() for path in (data / "images").glob("*/*"))
    seen = [name for name in names if name not in judged][::3]
    calibration = [
        to_input([read_photo(path) for path in sorted((data / "images" / name).glob("*.jpg"))[:4]], preprocessing)
        for name in seen
    ]
    groups = [
        group
        for name in judged
        for group in read_judged_groups(data / "images" / name, data / "gts" / name, 4, preprocessing)
    ]
    target = get_target("openvino")
    if problem := target.runs_here("int8"):
        pytest.skip(problem)
    source = prepare(model, calibration, TAKES_UNSIGNED[target.name])
    layers = int8_layers(source.plans)
    judge = Judge(model, groups)
    with Bench(target, preprocessing, judge).engine(source, layers, "int8") as (infer, share):
        found = judge.judge(infer)
    assert share > 0.99
    assert found.mask_iou >= 0.95
    assert found.delta_s is not None
    assert found.delta_mae is not None
    assert abs(found.delta_s) <= 0.005
    assert abs(found.delta_mae) <= 0.003
