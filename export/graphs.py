"""Which graph an engine is built from: the one place where precision decides what is exported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import onnx
from tqdm import tqdm

from gconet.engines.target import Target
from gconet.export.calibration import read_calibration
from gconet.export.quantise import prepare, quantise
from gconet.export.to_onnx import export_detect
from gconet.train.checkpoint import Checkpoint

TYPED = ("fp16", "bf16")  # precisions that are types of the graph

# Targets whose 8-bit activations may be unsigned: for what is never negative that is a whole bit more.
TAKES_UNSIGNED: Mapping[str, bool] = {
    "openvino": True,  # its integer convolutions multiply unsigned by signed, and what is signed is converted
    "onnxruntime": True,  # the same; and a ReLU is part of the rounding then, else it stands between two convolutions
    "tensorrt": False,  # knows signed integers only; unsigned ones it reads as signed, saying so in its log alone
    "tensorrt-rtx": False,
}

# What an INT8 graph of a target computes in where it is not INT8.
FLOATS_OF_INT8: Mapping[str, str] = {
    "openvino": "fp32",  # which its plugin lowers to bf16 by itself
    "onnxruntime": "fp32",  # half is emulated on CPUs
    "tensorrt": "fp16",  # strongly typed: sums, resizing and islands would stay float32 if the graph had that
    "tensorrt-rtx": "fp16",
}


def make_graph(
    checkpoint: Checkpoint,
    precision: str,
    target: Target,
    calibration: Path | None,
    winograd: Collection[str] = (),
) -> onnx.ModelProto:
    """The graph `images` → `maps` that `target` builds an engine of `precision` from.

    Parameters
    ----------
    calibration : folder of groups of photos on which fp16, bf16 and int8 measure activations; None for the examples.
    winograd : convolutions to put into Winograd's form, where `can_choose` says that they may be.

    Raises
    ------
    PhotoError
        If photos are needed and the folder is missing, or holds none that can be read.
    """
    model, preprocessing = checkpoint.network(), checkpoint.info.preprocessing
    if precision == "int8":
        groups = read_calibration(calibration, preprocessing)
        with tqdm(total=len(groups), desc="calibration", unit="group", disable=None, leave=False) as bar:
            return quantise(
                prepare(model, groups, TAKES_UNSIGNED[target.name], bar.update, FLOATS_OF_INT8[target.name])
            )
    if has_typed_graph(precision, target):
        return export_detect(model, preprocessing.size, precision, read_calibration(calibration, preprocessing))
    return export_detect(model, preprocessing.size, winograd=winograd)


def has_typed_graph(precision: str, target: Target) -> bool:
    """Whether a target's engine of a precision computes in the types of its graph, those of `lower`."""
    return precision in TYPED and precision not in target.lowers
