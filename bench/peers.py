"""What else runs the network, for comparison: PyTorch in five forms, and other runtimes on the un-optimised export.

A peer that cannot run here is left out, and the report says why. Nothing of PyTorch is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gconet.bench.environment import describe_environment
from gconet.runtime.errors import UsageError
from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import FloatArray

Infer = Callable[[FloatArray], FloatArray]  # network input (N, 3, S, S) -> maps (N, 1, S, S)

BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True)
class PeerRequest:
    """The network that peers run, and how.

    Attributes
    ----------
    manifest : of the bundle that they are peers of.
    checkpoint : what it was built from; None for the weights that ship, or random ones.
    threads : of the CPU; None leaves the choice to the peer.
    graphs : folder for the exported reference network, one file for each group size.
    device : of PyTorch: "cpu" or "cuda".
    """

    manifest: Manifest
    checkpoint: Path | None
    threads: int | None
    graphs: Path
    device: str = "cpu"


@dataclass(frozen=True)
class Peer:
    """Something that runs the reference network.

    Attributes
    ----------
    engine : its name in reports.
    target, precision : as in the table of tolerances.
    entry : "module:function" that makes an `Infer` of a `PeerRequest`.
    """

    engine: str
    target: str
    precision: str
    entry: str

    def load(self, request: PeerRequest) -> Infer:
        """Import what it needs and load the network."""
        module, _, name = self.entry.partition(":")
        infer: Infer = getattr(importlib.import_module(module), name)(request)
        return infer


EAGER = "eager"
PEERS: Mapping[str, Peer] = {
    EAGER: Peer("eager PyTorch", "pytorch", "fp32", "gconet.bench.eager:eager_fp32"),
    "pytorch-bf16": Peer("PyTorch bf16, channels last", "pytorch", "bf16", "gconet.bench.eager:eager_bf16"),
    "pytorch-fp16": Peer("PyTorch fp16, channels last", "pytorch", "fp16", "gconet.bench.eager:eager_fp16"),
    "torch-compile": Peer("torch.compile", "pytorch", "fp32", "gconet.bench.eager:compiled_fp32"),
    "torch-compile-fp16": Peer(
        "torch.compile fp16, CUDA graphs", "pytorch", "fp16", "gconet.bench.eager:compiled_fp16"
    ),
    "onnxruntime": Peer("plain ONNX Runtime", "onnxruntime", "fp32", "gconet.bench.plain_engines:onnxruntime_fp32"),
    "openvino-fp32": Peer("plain OpenVINO fp32", "openvino", "fp32", "gconet.bench.plain_engines:openvino_fp32"),
    "openvino-bf16": Peer("plain OpenVINO bf16", "openvino", "bf16", "gconet.bench.plain_engines:openvino_bf16"),
}


def choose_peers(words: Sequence[str]) -> list[str]:
    """Names of peers from what was typed: names, several to a word with commas between, "all" or "none".

    Eager PyTorch is not among them: it is switched by a flag of its own.

    Raises
    ------
    UsageError
        If a name is none.
    """
    names = [name for word in words for name in word.split(",") if name]
    others = [name for name in PEERS if name != EAGER]
    for name in names:
        if name not in (*others, "all", "none"):
            raise UsageError(f"no peer is called {name!r}: --peers takes {', '.join(others)}, all or none")
    if "none" in names and len(names) > 1:
        raise UsageError("--peers none stands alone")
    return others if "all" in names else [name for name in others if name in names]


def why_not_here(peer: Peer, request: PeerRequest) -> str | None:
    """What is known to be missing before a peer is loaded; None if it is worth a try."""
    if request.device != "cpu" and peer.target != "pytorch":
        return "it would run on the CPU, and the bundles run on a GPU"
    if request.device == "cpu" and peer.precision == "fp16":
        return "half precision is for a GPU, and the bundles run on the CPU"
    if (
        peer.precision == "bf16"
        and request.device == "cpu"
        and not BF16_FLAGS & set(describe_environment()["cpu_flags"])
    ):
        return "this CPU has no bf16 instructions, and emulating them says nothing"
    return None
