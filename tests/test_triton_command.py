"""`gconet export-triton`: what it writes and replaces, what it refuses, and the README's client against a stand-in."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_SIZE
from PIL import Image
from triton_stand_in import parameters, read_config, serving

import gconet.runtime as gr
from gconet.engines.bundle_writer import describe_files
from gconet.runtime import cli
from gconet.runtime.command_line import run
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.preprocess import Photo

Bundles = Callable[[str, str], Path]
MODELS = ["gconet_consensus", "gconet_detect", "gconet_segment"]
README = Path(__file__).resolve().parents[1] / "engines" / "TRITON.md"


@pytest.fixture
def bundle(tiny_bundle: Bundles) -> Path:
    return tiny_bundle("onnxruntime", "fp32")


def export(bundle: Path, repository: Path, *options: str) -> int:
    arguments = ["export-triton", "--bundle", str(bundle), "--repository", str(repository), *options]
    return run(cli.main, arguments)


def altered(bundle: Path, folder: Path, keep: tuple[str, ...] = (), **changes: object) -> Path:
    """A copy of a bundle that says something else of itself; `keep` names the files it has, empty for all."""
    copy = shutil.copytree(bundle, folder / "altered.gconet")
    manifest = json.loads((copy / MANIFEST_NAME).read_text("utf-8"))
    manifest.update(changes)
    if keep:
        manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name in keep}
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest), "utf-8")
    return copy


def plan_bundle(bundle: Path, folder: Path, **changes: object) -> Path:
    """A bundle that holds a file by the name of a plan: nothing here opens one, for that takes a GPU."""
    (folder / "detect.plan").write_bytes(b"plan")
    files = {name: asdict(entry) for name, entry in describe_files([folder / "detect.plan"]).items()}
    profiles = [[1, 1, 1], [2, 5, 8], [9, 20, 64]]
    facts = {"target": "tensorrt", "precision": "fp16", "target_version": "10.9.0", "max_group": 64} | changes
    copy = altered(bundle, folder, files=files, profiles=profiles, **facts)
    shutil.copy(folder / "detect.plan", copy)
    return copy


def test_it_writes_three_models_and_says_how_to_start(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "a" / "models"
    assert export(bundle, repository) == 0
    said = capsys.readouterr()
    assert f"start: tritonserver --model-repository={repository}" in said.out
    assert all(name in said.out for name in MODELS)
    assert said.err == ""
    assert sorted(path.name for path in repository.iterdir()) == MODELS
    assert [path.name for path in repository.parent.iterdir()] == ["models"]  # nothing is left beside it
    for model in repository.iterdir():
        files = sorted(path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file())
        assert files == ["1/model.onnx", "1/weights.bin", "config.pbtxt"]


def test_weights_are_on_the_disk_once_and_apart_from_the_bundle(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(repository: Path) -> set[int]:
        return {(repository / name / "1" / "weights.bin").stat().st_ino for name in MODELS}

    assert export(bundle, tmp_path / "linked") == 0
    assert len(files(tmp_path / "linked")) == 1
    assert (bundle / "weights.bin").stat().st_ino not in files(tmp_path / "linked")

    def no_links(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    assert export(bundle, tmp_path / "copied") == 0
    assert len(files(tmp_path / "copied")) == 3


def test_models_of_these_names_are_replaced_only_when_asked(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "resnet" / "config.pbtxt"
    other.parent.mkdir()
    other.write_text("", "ascii")
    assert export(bundle, tmp_path) == 0
    capsys.readouterr()
    assert export(bundle, tmp_path) == 2
    assert "has a gconet_detect already: choose another --name, or pass --overwrite" in capsys.readouterr().err
    assert export(bundle, tmp_path, "--name", "second") == 0

    old = altered(bundle, tmp_path.parent / f"{tmp_path.name}-old", keep=("detect.onnx", "weights.bin"))
    assert export(old, tmp_path, "--overwrite") == 0  # as bundles were before they had parts
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["gconet_detect", "resnet", "second_consensus", "second_detect", "second_segment"]


def test_a_folder_that_is_no_model_is_left_alone(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gconet_segment").mkdir()
    assert export(bundle, tmp_path, "--overwrite") == 2
    assert "gconet_segment is no model of Triton's" in capsys.readouterr().err
    (tmp_path / "file").write_bytes(b"")
    assert export(bundle, tmp_path / "file") == 2
    assert "is no folder" in capsys.readouterr().err


def test_when_the_disk_fails_the_earlier_models_are_back(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "models"
    assert export(bundle, repository, "--instances", "7") == 0
    rename, moved = Path.rename, []

    def fails_on_the_last(self: Path, target: Path) -> Path:
        moved.append(target)
        if len(moved) == 2 * len(MODELS):  # an earlier model moves out, and a new one in
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_on_the_last)
    assert export(bundle, repository, "--overwrite") == 2
    assert capsys.readouterr().err.endswith("Input/output error\n")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert [read_config(repository / name).instance_group[0].count for name in MODELS] == [7, 7, 7]


def test_a_plan_is_served_with_all_its_profiles(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(plan_bundle(bundle, tmp_path), tmp_path / "models") == 0
    assert "(of a Triton with TensorRT 10.9.0)" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["gconet_detect"]
    assert (tmp_path / "models/gconet_detect/1/model.plan").read_bytes() == b"plan"
    config = read_config(tmp_path / "models/gconet_detect")
    assert (config.backend, config.max_batch_size) == ("tensorrt", 0)
    (group,) = config.instance_group
    assert (group.kind, list(group.profile)) == (group.KIND_GPU, ["0", "1", "2"])
    assert [entry.inputs["images"].dims[0] for entry in config.model_warmup] == [1, 5, 20]
    assert [list(entry.dims) for entry in (*config.input, *config.output)] == [
        [-1, 3, TINY_SIZE, TINY_SIZE],
        [-1, 1, TINY_SIZE, TINY_SIZE],
    ]
    assert parameters(config)["precision"] == "fp16"


def test_a_plan_for_other_versions_needs_the_servers_leave(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compatible = plan_bundle(bundle, tmp_path, plan_options={"version_compatible": True})
    assert export(compatible, tmp_path / "models") == 0
    assert "--backend-config=tensorrt,version-compatible=true" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"target": "tensorrt-rtx"}, (), "TensorRT for RTX, which Triton has no backend for: build with `gconet build"),
        ({"target": "abacus"}, (), "target 'abacus' is unknown to this version"),
        ({"target": "openvino"}, ("--device", "cuda"), "runs on cpu, not cuda: for a GPU, `gconet build --target tens"),
        ({"target": "tensorrt"}, ("--device", "cpu"), "runs on cuda, not cpu: leave out --device"),
        ({"precision": "int8"}, ("--device", "cuda"), "runs on the CPU only: for a GPU, `gconet build"),
        ({}, ("--device", "cuda", "--threads", "2"), "--threads is for the CPU"),
        ({}, ("--name", "../x"), "--name '../x': use letters"),
    ],
    ids=["rtx", "unknown", "openvino on a GPU", "plan on a CPU", "int8 on a GPU", "threads of a GPU", "name"],
)
def test_what_triton_could_not_run_is_refused_in_one_line(
    changes: dict[str, object],
    options: tuple[str, ...],
    reason: str,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export(altered(bundle, tmp_path, **changes), tmp_path / "models", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert not (tmp_path / "models").exists()


def test_a_plan_without_weights_is_refused(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stripped = plan_bundle(bundle, tmp_path)
    manifest = json.loads((stripped / MANIFEST_NAME).read_text("utf-8"))
    shutil.copy(stripped / "detect.plan", stripped / "weights.onnx")
    manifest["files"]["weights.onnx"] = manifest["files"]["detect.plan"]
    (stripped / MANIFEST_NAME).write_text(json.dumps(manifest | {"weights_stripped": True}), "utf-8")
    assert export(stripped, tmp_path / "models") == 2
    assert "build without --strip-weights" in capsys.readouterr().err


@pytest.mark.parametrize(("target", "graph"), [("onnxruntime", "segment.onnx"), ("openvino", "segment.xml")])
def test_a_graph_that_the_library_refuses_is_found_before_it_is_served(
    target: str, graph: str, tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = altered(tiny_bundle(target, "fp32"), tmp_path)
    (copy / graph).write_bytes(b"<nothing/>")
    manifest = json.loads((copy / MANIFEST_NAME).read_text("utf-8"))
    manifest["files"][graph] = asdict(describe_files([copy / graph])[graph])
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest), "utf-8")
    assert export(copy, tmp_path / "models") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"cannot load model\.\w+ of {re.escape(str(copy))}: .*: build it again with `gconet build`", line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["altered.gconet"]


def test_fp32_by_openvino_comes_with_a_warning(
    tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tiny_bundle("openvino", "fp32"), tmp_path / "single") == 0
    assert "cannot ask for fp32" in capsys.readouterr().err
    assert export(tiny_bundle("openvino", "bf16"), tmp_path / "half") == 0
    assert capsys.readouterr().err == ""


def test_the_client_of_the_readme_gets_the_detectors_answers(
    bundle: Path, tmp_path: Path, example_photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(
        text for text in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL) if "triton" in text
    )
    names = re.findall(r'"(\w+\.jpg)"', code)
    assert len(names) == 4
    for name, photo in zip(names, example_photos, strict=False):
        Image.fromarray(photo).save(tmp_path / name.replace(".jpg", ".png"))  # without loss
    assert export(bundle, tmp_path / "models") == 0
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path / "models") as address:
        script = tmp_path / "client.py"
        script.write_text(code.replace("localhost:8001", address).replace(".jpg", ".png"), "utf-8")
        said = runpy.run_path(str(script))
    detector = gr.load(bundle)
    chairs, room = example_photos[:3], example_photos[3:4]
    for answer, expected in zip(said["maps"], detector.detect(chairs), strict=True):
        np.testing.assert_allclose(answer, expected, atol=1e-6)
    vector = detector.consensus(chairs)
    np.testing.assert_allclose(said["consensus"].ravel(), vector, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(said["found"], detector.segment(room, vector)[0], atol=1e-5)
