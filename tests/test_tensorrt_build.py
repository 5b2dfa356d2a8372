"""Plans: profiles, types, and what the bundle is told. Running them is tested with the sessions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import TINY_SIZE, require_tensorrt_rtx
from tensorrt_builds import CAPABILITIES, ONE_PROFILE, quantised_graph, read_network

import gconet.runtime as gr
from gconet.engines.bundle_writer import describe_files, write_manifest
from gconet.engines.plan_options import Profile
from gconet.engines.registry import get_target
from gconet.engines.target import EngineSpec
from gconet.engines.tensorrt_builder import LAYERS_NAME, PLAN_NAME, build_plan, plan_facts
from gconet.engines.tensorrt_config import Job, configure, optimization_profile
from gconet.engines.tensorrt_network import audit, audit_line, check_audit, describe_layers
from gconet.engines.tensorrt_products import TENSORRT_RTX
from gconet.export.to_onnx import export_detect
from gconet.runtime.errors import BundleError, TargetError
from gconet.runtime.manifest import Manifest
from gconet.train.model import GCoNet, initialise


def test_tensorrt_is_given_the_profiles(rtx: ModuleType) -> None:
    *keep, builder, network = read_network(rtx, quantised_graph())
    images = network.get_input(0)
    profile = optimization_profile(builder, images, Profile(9, 20, 256))
    assert [tuple(shape) for shape in profile.get_shape("images")] == [(n, 8, 16, 16) for n in (9, 20, 256)]
    config = configure(rtx, Job(TENSORRT_RTX, EngineSpec("int8", 256), ()), builder, images)
    assert config.num_optimization_profiles == 3
    del keep


# Plans


@pytest.mark.parametrize("capabilities", [(), *((one,) for one in CAPABILITIES), CAPABILITIES])
def test_half_plans_build_without_a_gpu(
    capabilities: tuple[str, ...], half_graph: onnx.ModelProto, tmp_path: Path
) -> None:
    require_tensorrt_rtx()
    spec = EngineSpec("fp16", 4, capabilities, ONE_PROFILE)
    files = get_target("tensorrt-rtx").build(half_graph, spec, tmp_path)
    assert {path.name for path in files} >= {PLAN_NAME, LAYERS_NAME}
    facts = plan_facts(tmp_path)
    assert facts["profiles"] == ((1, 2, 4),)
    assert facts["compute_capabilities"] == capabilities
    assert not facts["weights_stripped"]
    assert facts["audit"]["shares"]["Half"] >= 0.99
    assert facts["audit"]["convolutions"] == 36
    assert "99." in audit_line(facts["audit"])


def test_one_plan_takes_groups_of_1_to_256(half_graph: onnx.ModelProto, tmp_path: Path) -> None:
    require_tensorrt_rtx()
    build_plan(Job(TENSORRT_RTX, EngineSpec("fp16", 256), ()), half_graph, tmp_path)
    assert plan_facts(tmp_path)["profiles"] == ((1, 1, 1), (2, 5, 8), (9, 20, 256))


@pytest.mark.slow
def test_the_full_size_network_builds_for_all_gpus_and_groups(tmp_path: Path) -> None:
    """Weights alone are 33 MB in half precision and twice that in single."""
    require_tensorrt_rtx()
    noise = np.random.default_rng(0).standard_normal((2, 3, 224, 224), np.float32)
    graph = export_detect(initialise(GCoNet(), seed=0).eval(), 224, "fp16", [noise])
    build_plan(Job(TENSORRT_RTX, EngineSpec("fp16", 256, CAPABILITIES), ()), graph, tmp_path)
    facts = plan_facts(tmp_path)
    assert facts["profiles"][-1] == (9, 20, 256)
    assert facts["audit"]["shares"]["Half"] >= 0.99
    assert facts["audit"]["gflop_per_photo"] == pytest.approx(59.5, abs=0.5)
    assert 33e6 < (tmp_path / PLAN_NAME).stat().st_size < 50e6


def test_int8_plans_build_from_qdq_graphs(tmp_path: Path) -> None:
    require_tensorrt_rtx()
    build_plan(Job(TENSORRT_RTX, EngineSpec("int8", 4, ("8.9",), ONE_PROFILE), ()), quantised_graph(), tmp_path)
    assert plan_facts(tmp_path)["audit"]["shares"]["Int8"] > 0.9


def test_the_manifest_keeps_what_was_built(half_graph: onnx.ModelProto, tiny_bundle: Any, tmp_path: Path) -> None:
    require_tensorrt_rtx()
    spec = EngineSpec("fp16", 4, (), ONE_PROFILE)
    folder = tmp_path / "plan.gconet"
    folder.mkdir()
    files = describe_files(build_plan(Job(TENSORRT_RTX, spec, ()), half_graph, folder))
    other = gr.open_bundle(tiny_bundle("onnxruntime", "fp32")).manifest
    manifest = dataclasses.replace(other, target="tensorrt-rtx", files=files, **plan_facts(folder))
    write_manifest(folder, manifest)
    assert gr.open_bundle(folder).manifest == manifest
    assert other.profiles == ()
    assert plan_facts(tiny_bundle("onnxruntime", "fp32")) == {}


@pytest.mark.parametrize(
    "entries",
    [
        {"profiles": [[1, 2]]},
        {"profiles": [[1, 2, 4], [4, 5, 8]]},
        {"profiles": [[2, 1, 4]]},
        {"profiles": [[1, 2, "4"]]},
        {"profiles": 3},
        {"weights_stripped": True},
        {"weights_stripped": "no"},
        {"audit": []},
    ],
)
def test_damaged_plan_entries_of_a_manifest_are_refused(entries: dict[str, Any], tiny_bundle: Any) -> None:
    document = json.loads((tiny_bundle("onnxruntime", "fp32") / "manifest.json").read_text("utf-8"))
    with pytest.raises(BundleError, match="damaged"):
        Manifest.from_json(json.dumps(document | entries), "here")


# What the arithmetic is done in


def test_layers_and_their_types_are_told(rtx: ModuleType) -> None:
    *keep, network = read_network(rtx, quantised_graph())
    layers = describe_layers(rtx, network)
    first, second = (layer for layer in layers if "arithmetic" in layer)
    assert (first["arithmetic"], first["multiplications"]) == ("Int8", 8 * 8 * 9 * 16 * 16)
    assert (second["arithmetic"], second["multiplications"]) == ("Float", 4 * 8 * 16 * 16)
    assert first["outputs"] == [{"shape": [-1, 8, 16, 16], "type": "Float"}]
    assert {"QUANTIZE", "DEQUANTIZE", "CONSTANT"} <= {layer["kind"] for layer in layers}
    found = audit(layers)
    assert found.shares == pytest.approx({"Int8": 72 / 76, "Float": 4 / 76})
    assert found.gflop == pytest.approx(2 * 76 * 8 * 256 / 1e9)
    del keep


def test_rounded_weights_alone_are_no_int8(rtx: ModuleType) -> None:
    *keep, network = read_network(rtx, quantised_graph(activations=False))
    found = audit(describe_layers(rtx, network))
    assert found.shares == {"Float": 1.0}
    with pytest.raises(TargetError, match=r"the graph is not int8: 0.00% .* in Int8"):
        check_audit(found, "int8")
    del keep


def test_a_graph_of_another_precision_is_found_out(tiny_network: GCoNet, tmp_path: Path) -> None:
    require_tensorrt_rtx()
    single = export_detect(tiny_network, TINY_SIZE, "fp32")
    with pytest.raises(TargetError, match=r"the graph is not fp16: 0.00% of its convolutions.*at least 99%"):
        build_plan(Job(TENSORRT_RTX, EngineSpec("fp16", 4), ()), single, tmp_path)
    assert list(tmp_path.iterdir()) == []
