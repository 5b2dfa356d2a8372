"""PyTorch state dicts, read without running code, and the authors' names for GCoNet's parameters."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gconet.runtime.errors import CheckpointError
from gconet.runtime.paths import kind_of
from gconet.train.model import CONVOLUTIONS_PER_BLOCK

# Parameters in the authors' checkpoint that their network never uses.
DEAD_KEYS = re.compile(r"backbone\.classifier\.|co_x5\.(conv_output|conv_transform|fc_transform)\.|co_classifier\.")
MAX_EXPANSION = 4  # tensors may share memory, but not come to many times the file: they are copied one by one
WRAPPER_PREFIXES = ("module.", "ginet.")


class Renamed(NamedTuple):
    """Tensors under our names, and the dead keys that were left out."""

    state: dict[str, Tensor]
    dropped: tuple[str, ...]


def authors_names() -> dict[str, str]:
    """The authors' name of each of our parameters."""
    layers = {
        f"encoder.conv{block}.conv{block}_{index}": f"backbone.conv{block}.conv{block}_{index}"
        for block, count in enumerate(CONVOLUTIONS_PER_BLOCK, start=1)
        for index in range(1, count + 1)
    }
    layers |= {
        "gam.query": "co_x5.all_attention.query_transform",
        "gam.key": "co_x5.all_attention.key_transform",
        "gam.output": "co_x5.all_attention.conv6",
        "decoder.top.0": "toplayer.0",
        "decoder.top.2": "toplayer.2",
        "gcm.0": "pred_layer.enlayer.0",
        "gcm.2": "pred_layer.predlayer.0",
        "acm": "classifier",
    }
    for k in (4, 3, 2, 1):
        for index in (0, 2):
            layers[f"decoder.levels.{k}.lateral.{index}"] = f"latlayer{k}.convlayer.{index}"
            layers[f"decoder.levels.{k}.fuse.{index}"] = f"enlayer{k}.enlayer.{index}"
            layers[f"decoder.levels.{k}.side.{index}"] = f"dslayer{k}.enlayer.{index}"
        layers[f"decoder.levels.{k}.side.4"] = f"dslayer{k}.predlayer.0"
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in layers.items() for kind in ("weight", "bias")}


def rename_authors(source: Mapping[str, Tensor]) -> Renamed:
    """Give a state dict of the authors' network our names, in float32; names that are not theirs stay."""
    stripped = {_strip_prefixes(name): tensor for name, tensor in source.items()}
    dropped = tuple(sorted(name for name in stripped if DEAD_KEYS.match(name)))
    ours = {theirs: ours for ours, theirs in authors_names().items()}
    return Renamed({ours.get(name, name): stripped[name].float() for name in stripped if name not in dropped}, dropped)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a `.pth` of named tensors with `weights_only=True`; raises CheckpointError on anything else."""
    if kind_of(path, CheckpointError) != "file":
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise ValueError("torch.save() never compresses: a small file could fill the memory")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Any bytes can be tried, so anything can be raised; torch's own text would advise to load without protection.
        raise CheckpointError(f"{path} is not a PyTorch checkpoint of plain tensors") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]  # a training checkpoint: weights beside the optimizer's state
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CheckpointError(f"{path} is not a state dict: a dictionary of named tensors is wanted")
    if not all(_is_plain(tensor) for tensor in content.values()):
        raise CheckpointError(f"{path} is not a state dict of plain tensors: sparse, quantised and complex ones are no "
                              "weights of this network")  # fmt: skip
    if sum(tensor.nbytes for tensor in content.values()) > MAX_EXPANSION * path.stat().st_size:
        raise CheckpointError(f"{path} is damaged: its tensors come to many times its size")
    return content


def _is_plain(tensor: Tensor) -> bool:
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
    return dense and not tensor.is_quantized and not tensor.is_complex()


def _strip_prefixes(name: str) -> str:
    for prefix in WRAPPER_PREFIXES:
        name = name.removeprefix(prefix)
    return name
