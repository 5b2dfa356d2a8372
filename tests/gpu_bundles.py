"""Bundles of the tiny network for a real GPU: fixtures `gpu_bundle`, `gpu_detector` and `gpu_plan`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_MAX_GROUP, TINY_SIZE, tiny_manifest

import gconet.runtime as gr
from gconet.engines.bundle_writer import describe_files, staged_bundle, write_manifest
from gconet.engines.plan_options import PlanOptions
from gconet.engines.registry import get_target
from gconet.engines.target import EngineSpec
from gconet.engines.tensorrt_builder import plan_facts
from gconet.export.to_onnx import export_detect
from gconet.runtime.cuda import Device
from gconet.runtime.preprocess import FloatArray
from gconet.train.model import GCoNet

PLANS = ("tensorrt", "tensorrt-rtx")


@pytest.fixture(scope="session")
def gpu_bundle(tiny_network: GCoNet, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Bundles of the tiny network by (target, precision, options); skips where the target cannot run."""
    built: dict[tuple[str, str, PlanOptions], Path] = {}

    def make(target_name: str, precision: str = "fp32", options: PlanOptions | None = None) -> Path:
        _require(target_name)
        key = target_name, precision, options or PlanOptions()
        if key not in built:
            target = get_target(target_name)
            spec = EngineSpec(precision, TINY_MAX_GROUP, plan=key[2])
            graph = export_detect(tiny_network, TINY_SIZE, precision)
            out = tmp_path_factory.mktemp("gpu") / f"{target_name}-{precision}.gconet"
            with staged_bundle(out) as folder:
                files = describe_files(target.build(graph, spec, folder))
                manifest = tiny_manifest(target_name, precision, target.version(), files)
                write_manifest(folder, dataclasses.replace(manifest, **plan_facts(folder)))
            built[key] = out
        return built[key]

    return make


def _require(target: str) -> None:
    if target == "onnxruntime":
        ort = pytest.importorskip("onnxruntime")
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            pytest.skip("needs onnxruntime-gpu: pip install 'gconet-deploy[onnxruntime-gpu]'")
        try:
            Device(0)
        except gr.TargetError as error:
            pytest.skip(f"needs an NVIDIA GPU: {error}")
    elif problem := get_target(target).runs_here():
        pytest.skip(problem)


@pytest.fixture(params=[*PLANS, "onnxruntime"])
def gpu_detector(request: pytest.FixtureRequest, gpu_bundle: Callable[..., Path]) -> gr.Detector:
    """The tiny network in fp32 on the first GPU, once per engine."""
    return gr.load(gpu_bundle(request.param), device="cuda")


@pytest.fixture(params=PLANS)
def gpu_plan(request: pytest.FixtureRequest, gpu_bundle: Callable[..., Path]) -> Path:
    """A bundle of the tiny network in fp32, once per TensorRT."""
    return gpu_bundle(request.param)


def images_of(count: int, rng: np.random.Generator) -> FloatArray:
    return rng.standard_normal((count, 3, TINY_SIZE, TINY_SIZE), np.float32)


def infer(detector: gr.Detector, images: FloatArray) -> FloatArray:
    return np.asarray(detector.session.infer({"images": images})["maps"])


def need_torch_cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs PyTorch with CUDA: the installed one is for the CPU")
    return torch.device("cuda:0")
