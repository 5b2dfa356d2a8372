"""`ai.gconet::GroupAffinity` for PyTorch on NVIDIA GPUs, in memory that grows with N instead of N².

    network = InferenceNetwork(checkpoint.network()).cuda()
    network.gam.affinity = fused_group_affinity
    maps = torch.compile(network)(images)

One more form of `gconet.export.operators.group_affinity`, registered with PyTorch as `gconet::group_affinity`, without
gradient. It needs Triton, which PyTorch's CUDA builds bring, and compute capability 8.0 or more. On CPUs it runs in
Triton's interpreter alone (`TRITON_INTERPRET=1`), for tests. Not measured on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op

from gconet.engines.installed import import_or_explain
from gconet.export.operators import group_affinity
from gconet.runtime.errors import TargetError, UsageError

TYPES = (torch.float32, torch.float16, torch.bfloat16)


def fused_group_affinity(query: Tensor, key: Tensor, pixel_bias: Tensor) -> Tensor:
    """`group_affinity` by a Triton kernel: the same arguments, the same result up to rounding.

    Products and sums are float32 in any case, so halves do not overflow before the result.

    Parameters
    ----------
    query, key : (N, C, h, w), both float32, float16 or bfloat16, contiguous or channels-last.
    pixel_bias : (N, 1, h, w), of one of these types, which is the result's.

    Returns
    -------
    (N, 1, h, w), each photo summing to 1.

    Raises
    ------
    UsageError
        If shapes or types do not fit.
    TargetError
        If Triton is missing or the tensors are not on a GPU.
    """
    if torch.onnx.is_in_onnx_export():
        return group_affinity(query, key, pixel_bias)
    attention: Tensor = _fused(query, key, pixel_bias)
    return attention


# Opaque to `torch.compile`, unlike a `triton_op`: there is nothing to fuse into the kernel, and the interpreter's
# kernels cannot be traced.
@custom_op("gconet::group_affinity", mutates_args=())
def _fused(query: Tensor, key: Tensor, pixel_bias: Tensor) -> Tensor:
    _check(query, key, pixel_bias)
    import_or_explain("triton", ("triton",))
    from gconet.engines import affinity_kernels

    if not (query.is_cuda or affinity_kernels.INTERPRETED):
        raise TargetError(
            f"the fused affinity runs on NVIDIA GPUs, not on {query.device}: move the network there with .cuda(), "
            "or use gconet.export.operators.group_affinity"
        )
    query, key = query.flatten(2), key.flatten(2)  # N, C, h·w
    photos, channels, pixels = query.shape
    tile = affinity_kernels.TILES[query.element_size()]
    # The interpreter multiplies the bit patterns of bfloat16 as if they were integers.
    widen = affinity_kernels.INTERPRETED and query.dtype == torch.bfloat16
    constants = affinity_kernels.constants(channels, pixels, query.stride(), key.stride(), tile, widen=widen)
    logits = torch.empty(photos, pixels, dtype=torch.float32, device=query.device)
    grid = photos, -(-pixels // tile.query)
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
        affinity_kernels.logits_kernel[grid](
            query, key, pixel_bias.contiguous(), photos, logits, **constants, **affinity_kernels.LAUNCH
        )
    return logits.softmax(dim=-1).to(pixel_bias.dtype).view(pixel_bias.shape)


@_fused.register_fake
def _(query: Tensor, key: Tensor, pixel_bias: Tensor) -> Tensor:
    _check(query, key, pixel_bias)
    return pixel_bias.new_empty(pixel_bias.shape)


def _check(query: Tensor, key: Tensor, pixel_bias: Tensor) -> None:
    if query.dim() != 4 or query.shape != key.shape or pixel_bias.shape != (query.shape[0], 1, *query.shape[2:]):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (query, key, pixel_bias))
        raise UsageError(f"group affinity takes (N, C, h, w), (N, C, h, w) and (N, 1, h, w), not {shapes}")
    if query.dtype != key.dtype or not {query.dtype, pixel_bias.dtype} <= set(TYPES):
        types = ", ".join(str(tensor.dtype) for tensor in (query, key, pixel_bias))
        raise UsageError(f"group affinity takes query and key of one type of {TYPES} and such a bias, not {types}")
    if len(devices := {tensor.device for tensor in (query, key, pixel_bias)}) > 1:
        raise UsageError(f"group affinity takes tensors on one device, not {', '.join(map(str, devices))}")
