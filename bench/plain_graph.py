"""The reference network as anybody would export it: no rewrite, a fixed group size, PyTorch's own exporter."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from gconet.export.operators import OPSET
from gconet.export.to_onnx import quiet_exporter
from gconet.train.model import GCoNet


def export_plain(network: GCoNet, size: int, group: int, path: Path) -> None:
    """Write `images` (group, 3, size, size) → `maps` (group, 1, size, size) to `path`; weights beside it."""
    images = torch.zeros(group, 3, size, size)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, quiet_exporter():
        torch.onnx.export(
            network,
            (images,),
            Path(scratch, path.name),
            input_names=["images"],
            output_names=["maps"],
            opset_version=OPSET,
            dynamo=True,
        )
        for file in Path(scratch).iterdir():
            if file.name != path.name:
                file.rename(path.parent / file.name)
        Path(scratch, path.name).rename(path)  # last: the graph is there once all of it is
