"""PyTorch as a peer in benchmarks: the bundle's network, as trained, without any rewrite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from gconet.bench.peers import Infer, PeerRequest
from gconet.bench.reference import reference_network
from gconet.runtime.errors import CheckpointError, TargetError
from gconet.runtime.preprocess import FloatArray
from gconet.train.checkpoint import random_checkpoint
from gconet.train.model import Architecture, GCoNet


def peer_network(request: PeerRequest) -> GCoNet:
    """The network a bundle was built from; one of random weights, on which arithmetic takes the same time, where its
    checkpoint is neither named nor the one that ships.

    Raises
    ------
    CheckpointError
        If a checkpoint is named that cannot be read or is not the bundle's.
    TargetError
        If it is to run on a GPU and this PyTorch knows none.
    """
    if request.device == "cuda" and not torch.cuda.is_available():
        raise TargetError(
            "the bundles run on a GPU, which this PyTorch cannot reach: see pytorch.org/get-started/locally"
        )
    try:
        return reference_network(request.manifest, request.checkpoint)
    except CheckpointError:
        if request.checkpoint is not None:
            raise
        architecture = Architecture.from_dict(request.manifest.architecture)
        return random_checkpoint(architecture=architecture).network()


def eager_fp32(request: PeerRequest) -> Infer:
    """The reference itself."""
    torch.backends.cudnn.allow_tf32 = False  # on a GPU, convolutions are rounded to 10 bits otherwise
    return _runner(peer_network(request).to(request.device), request, torch.float32)


def eager_bf16(request: PeerRequest) -> Infer:
    """All weights and activations in bfloat16, channels last: what a few lines of PyTorch get."""
    return _runner(_channels_last(request, torch.bfloat16), request, torch.bfloat16)


def eager_fp16(request: PeerRequest) -> Infer:
    """The same in half precision, for GPUs."""
    return _runner(_channels_last(request, torch.float16), request, torch.float16)


def compiled_fp32(request: PeerRequest) -> Infer:
    """`torch.compile`, once for each group size; the first call of each size takes a minute and needs a compiler."""
    torch.backends.cudnn.allow_tf32 = False
    network = torch.compile(peer_network(request).to(request.device), dynamic=False)
    return _runner(network, request, torch.float32)


def compiled_fp16(request: PeerRequest) -> Infer:
    """The best of PyTorch on a GPU: half precision, channels last, fused kernels, launched as one CUDA graph."""
    network = torch.compile(_channels_last(request, torch.float16), dynamic=False, mode="reduce-overhead")
    return _runner(network, request, torch.float16)


def _channels_last(request: PeerRequest, dtype: torch.dtype) -> GCoNet:
    network = peer_network(request).to(request.device, dtype)
    moved: GCoNet = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in its stubs
    return moved


def _runner(network: nn.Module | Callable[..., torch.Tensor], request: PeerRequest, dtype: torch.dtype) -> Infer:
    if request.threads:
        torch.set_num_threads(request.threads)
    layout = torch.contiguous_format if dtype == torch.float32 else torch.channels_last

    def infer(images: FloatArray) -> FloatArray:
        with torch.inference_mode():
            given = torch.from_numpy(images).to(request.device, dtype, memory_format=layout)
            maps: FloatArray = network(given).float().cpu().numpy()
        return maps

    return infer
