"""Bundles of the tiny network with a fault planted, and the checkpoint they claim to be built from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from conftest import TINY_MAX_GROUP, TINY_SIZE
from onnx import numpy_helper

from gconet.engines.bundle_writer import describe_files, staged_bundle, write_manifest
from gconet.engines.registry import get_target
from gconet.engines.target import EngineSpec
from gconet.export.operators import OPSET
from gconet.export.to_onnx import export_detect
from gconet.runtime.bundle import describe_file
from gconet.runtime.manifest import Manifest
from gconet.train.checkpoint import Checkpoint, save_checkpoint

Fault = Callable[[onnx.ModelProto], None]  # alters an exported graph in place


class BundleWithFault:
    """Makes bundles of one checkpoint, written to `checkpoint_file`; the graph is exported once."""

    def __init__(self, checkpoint: Checkpoint, folder: Path) -> None:
        self.folder = folder
        self.checkpoint_file = folder / "tiny.safetensors"
        save_checkpoint(checkpoint, self.checkpoint_file)
        self.checkpoint = checkpoint
        self.graph = export_detect(checkpoint.network(), TINY_SIZE)

    def __call__(self, name: str, target_name: str, precision: str, fault: Fault = lambda _: None) -> Path:
        """A bundle whose graph was altered before the engine was built from it."""
        graph = onnx.ModelProto()
        graph.CopyFrom(self.graph)
        fault(graph)
        target = get_target(target_name)
        out = self.folder / f"{name}.gconet"
        with staged_bundle(out) as folder:
            manifest = Manifest(
                target=target_name,
                precision=precision,
                target_version=target.version(),
                preprocessing=self.checkpoint.info.preprocessing,
                max_group=TINY_MAX_GROUP,
                files=describe_files(target.build(graph, EngineSpec(precision, TINY_MAX_GROUP), folder)),
                architecture=dataclasses.asdict(self.checkpoint.info.architecture),
                checkpoint={"provenance": "tests", "sha256": describe_file(self.checkpoint_file).sha256},
                opset=OPSET,
                created="2026-01-01T00:00:00+00:00",
            )
            write_manifest(folder, manifest)
        return out


def change_weight(layer: str, value: float) -> Fault:
    """Set one weight of a layer."""

    def plant(graph: onnx.ModelProto) -> None:
        (tensor,) = [tensor for tensor in graph.graph.initializer if tensor.name == f"{layer}.weight"]
        weights = numpy_helper.to_array(tensor).copy()
        weights.flat[weights.size // 2] = value
        tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))

    return plant


def scale_weights(layer: str, factor: float) -> Fault:
    """Multiply all weights of a layer."""

    def plant(graph: onnx.ModelProto) -> None:
        (tensor,) = [tensor for tensor in graph.graph.initializer if tensor.name == f"{layer}.weight"]
        weights = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((weights * factor).astype(weights.dtype), tensor.name))

    return plant


def round_output(layer: str, element_type: int) -> Fault:
    """Cast a layer's output to a narrower type and back."""

    def plant(graph: onnx.ModelProto) -> None:
        (index,) = [i for i, node in enumerate(graph.graph.node) if f"{layer}.weight" in node.input]
        (output,) = graph.graph.node[index].output
        graph.graph.node[index].output[0] = "exact"
        casts = [
            onnx.helper.make_node("Cast", ["exact"], ["narrow"], to=element_type),
            onnx.helper.make_node("Cast", ["narrow"], [output], to=onnx.TensorProto.FLOAT),
        ]
        for offset, cast in enumerate(casts, start=1):
            graph.graph.node.insert(index + offset, cast)

    return plant


def random_images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Network inputs (count, 3, S, S)."""
    return np.random.default_rng(5).standard_normal((count, 3, TINY_SIZE, TINY_SIZE), np.float32)
