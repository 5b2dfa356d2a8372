"""A consensus on disk: a small `.safetensors` file that says which network made it, of what photos."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gconet.runtime.atomic import replacing
from gconet.runtime.bundle import Bundle, describe_file
from gconet.runtime.errors import ConsensusError, one_line
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.paths import kind_of
from gconet.runtime.preprocess import FloatArray

SCHEMA = 1
HEADER = "gconet_consensus"


@dataclass(frozen=True)
class Consensus:
    """What a group of photos shares.

    Attributes
    ----------
    vector : (C,) float32.
    photos : names of the photos it was made of.
    bundle : SHA-256 of the manifest of the bundle that made it.
    network : SHA-256 of the checkpoint, and the input size: only engines of the same network understand the vector.
    """

    vector: FloatArray
    photos: tuple[str, ...]
    bundle: str
    network: tuple[str, int]


def save_consensus(
    path: str | os.PathLike[str], bundle: Bundle, vector: FloatArray, photos: Sequence[str | os.PathLike[str]] = ()
) -> None:
    """Write a consensus (C,) that a detector of `bundle` made; `photos` are kept as names.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    from safetensors.numpy import save  # only here: most programs keep no consensus, and all import this module

    checkpoint, size = _network(bundle)
    header = {
        "schema": SCHEMA,
        "bundle": describe_file(bundle.folder / MANIFEST_NAME).sha256,
        "checkpoint": checkpoint,
        "size": size,
        "photos": [os.fspath(photo) for photo in photos],
    }
    content = save({"consensus": np.ascontiguousarray(vector)}, metadata={HEADER: json.dumps(header)})
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)  # save_file() hides the system's errors, and leaves files if it is killed


def load_consensus(path: str | os.PathLike[str], bundle: Bundle) -> Consensus:
    """Read a consensus for a detector of `bundle`.

    Raises
    ------
    ConsensusError
        If the file is missing, damaged or no consensus, or was made by another network or for another input size.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if kind_of(path, ConsensusError) != "file":
        raise ConsensusError(f"no consensus at {path}: make one with `gconet consensus PHOTOS --out {path}`")
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            found = file.get_slice("consensus")
            if (found.get_dtype(), found.get_shape()) != ("F32", [bundle.manifest.channels]):  # before it is read
                raise ValueError(f"its vector is {found.get_dtype()} {found.get_shape()}")
            vector = file.get_tensor("consensus")
        if not isinstance(header["schema"], int) or header["schema"] > SCHEMA:
            raise ConsensusError(
                f"{path} has schema {header['schema']}, this version reads up to {SCHEMA}: update gconet-deploy"
            )
        consensus = Consensus(
            vector, tuple(map(str, header["photos"])), str(header["bundle"]), (header["checkpoint"], header["size"])
        )
        if not np.isfinite(vector).all():
            raise ValueError("its vector is not finite")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConsensusError(
            f"{path} is not a consensus ({one_line(error)}): make it again with `gconet consensus`"
        ) from error
    if consensus.network != _network(bundle):
        raise ConsensusError(
            f"{path} was made by another network or for another input size than {bundle.folder} has: make it again, "
            f"`gconet consensus PHOTOS --bundle {bundle.folder}`, or name the bundle it is from"
        )
    return consensus


def _network(bundle: Bundle) -> tuple[str, int]:
    return bundle.manifest.checkpoint.get("sha256", "unknown"), bundle.manifest.preprocessing.size
