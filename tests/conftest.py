"""Tiny seeded networks and the bundles made from them; real photos where they are at hand."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from gconet.bench.photo_groups import EXAMPLES
from gconet.engines.bundle_writer import describe_files, staged_bundle, write_manifest
from gconet.engines.registry import get_target
from gconet.engines.target import EngineSpec
from gconet.export.graphs import make_graph
from gconet.export.operators import OPSET
from gconet.runtime.errors import TargetError
from gconet.runtime.manifest import FileEntry, Manifest
from gconet.runtime.photos import read_photo
from gconet.runtime.preprocess import Photo, Preprocessing
from gconet.train.checkpoint import Checkpoint, CheckpointInfo, random_checkpoint
from gconet.train.model import Architecture, GCoNet

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, so not in the tests that need it

# Fixtures that more than one file uses.
pytest_plugins = [
    *("imaginary_sessions", "imaginary_gpus", "tensorrt_builds", "gpu_bundles", "capi_build", "capi_library"),
    *("callers_arrays", "gconet_terminal"),
]

TINY = Architecture(encoder_channels=(4, 6, 8, 12, 16), decoder_channels=4, classes=5)
TINY_SIZE = 64
TINY_MAX_GROUP = 4
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Checkpoint:
    """Random weights of a network small enough to export in a second; biases are not zero, so that folds show."""
    checkpoint = random_checkpoint(seed=1, architecture=TINY)
    generator = torch.Generator().manual_seed(2)
    for name, tensor in checkpoint.state.items():
        if name.endswith("bias"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    info = CheckpointInfo(TINY, Preprocessing(TINY_SIZE), "tests: tiny random network")
    return dataclasses.replace(checkpoint, info=info)


@pytest.fixture(scope="session")
def tiny_network(tiny_checkpoint: Checkpoint) -> GCoNet:
    """The tiny network in eval mode."""
    return tiny_checkpoint.network()


def tiny_manifest(target: str, precision: str, version: str, files: Mapping[str, FileEntry]) -> Manifest:
    """The manifest of a bundle of the tiny network."""
    return Manifest(
        target=target,
        precision=precision,
        target_version=version,
        preprocessing=Preprocessing(TINY_SIZE),
        max_group=TINY_MAX_GROUP,
        files=files,
        architecture=dataclasses.asdict(TINY),
        checkpoint={"provenance": "tests"},
        opset=OPSET,
        created="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Bundles of the tiny network by (target, precision); built once, not to be altered."""
    built: dict[tuple[str, str], Path] = {}

    def make(target_name: str, precision: str) -> Path:
        key = target_name, precision
        if key not in built:
            target = get_target(target_name)
            if precision == "int8" and (problem := target.runs_here(precision)):
                pytest.skip(problem)
            spec = EngineSpec(precision, TINY_MAX_GROUP)
            graph = make_graph(tiny_checkpoint, precision, target, None)
            out = tmp_path_factory.mktemp("bundles") / f"{target_name}-{precision}.gconet"
            with staged_bundle(out) as folder:
                files = describe_files(target.build(graph, spec, folder))
                manifest = tiny_manifest(target_name, precision, target.version(), files)
                write_manifest(folder, manifest)
            built[key] = out
        return built[key]

    return make


@pytest.fixture(scope="session")
def example_photos() -> list[Photo]:
    """All photos of the example groups, (H, W, 3) uint8."""
    return [read_photo(path) for path in sorted(EXAMPLES.glob("*/*.jpg"))]


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder `shared` beside the repository with data sets and reference figures; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs data sets and reference figures in ../shared, which are not part of the project")
    return SHARED


def require_target(name: str) -> None:
    """Skip where a target's library, or the GPU it builds on, is missing."""
    try:
        get_target(name).version()
    except TargetError as error:
        pytest.skip(str(error))


def require_tensorrt_rtx() -> None:
    """Skip where the wheels, made for Linux on x86-64, are not installed."""
    require_target("tensorrt-rtx")


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator."""
    return np.random.default_rng(0)
