"""Sessions on an imaginary GPU, for tests: fixtures `driver` and `make_session`, and bundles of imaginary plans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeDriver
from fake_tensorrt import (
    VERSION,
    fake_plan,
    fake_tensorrt,
)

import gconet.runtime as gr
from gconet.engines.bundle_writer import describe_files, write_manifest
from gconet.runtime import cuda, tensorrt_engine, tensorrt_kernels
from gconet.runtime.preprocess import FloatArray, Preprocessing
from gconet.runtime.session import SessionOptions
from gconet.runtime.tensorrt_session import TensorRtSession

SIZE = 32
PROFILES = [(1, 1, 1), (2, 5, 8), (9, 10, 12)]
SessionMaker = Callable[..., TensorRtSession]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> FakeDriver:
    """An imaginary GPU in place of what this machine has, with the TensorRT that runs on it, and an empty cache."""
    fake = FakeDriver()
    cache = tmp_path_factory.mktemp("cache") / "gconet"
    monkeypatch.setattr(tensorrt_kernels, "cache_folder", lambda: cache)
    monkeypatch.setattr(cuda, "load_driver", lambda: fake)
    monkeypatch.setattr(
        tensorrt_engine, "load_tensorrt", lambda product: fake_tensorrt(fake, rtx=product == "tensorrt-rtx")
    )
    return fake


def write_bundle(folder: Path, plan: bytes, weights: bytes | None = None, **changes: Any) -> Path:
    """A bundle of an imaginary plan."""
    folder.mkdir()
    paths = [folder / "detect.plan"]
    paths[0].write_bytes(plan)
    if weights is not None:
        paths.append(folder / "weights.onnx")
        paths[1].write_bytes(weights)
    facts: dict[str, Any] = {
        "target": "tensorrt",
        "precision": "fp16",
        "target_version": VERSION,
        "preprocessing": Preprocessing(SIZE),
        "max_group": 12,
        "files": describe_files(paths),
        "architecture": {},
        "checkpoint": {},
        "opset": 18,
        "created": "2026-01-01T00:00:00+00:00",
    }
    write_manifest(folder, gr.Manifest(**facts | changes))
    return folder


@pytest.fixture
def make_session(driver: FakeDriver, tmp_path: Path) -> SessionMaker:  # noqa: ARG001 (must be there first)
    """Sessions of plans with some facts, of bundles with some changes."""

    def make(target: str = "tensorrt", cuda_graphs: bool = True, **facts: Any) -> TensorRtSession:
        folder = write_bundle(
            tmp_path / f"{len(list(tmp_path.iterdir()))}.gconet", fake_plan(SIZE, PROFILES, **facts), target=target
        )
        return TensorRtSession(gr.open_bundle(folder), SessionOptions("cuda", cuda_graphs=cuda_graphs))

    return make


def images_of(count: int, rng: np.random.Generator) -> FloatArray:
    return rng.standard_normal((count, 3, SIZE, SIZE), np.float32)
