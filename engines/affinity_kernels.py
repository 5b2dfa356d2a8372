"""Triton kernels of `ai.gconet::GroupAffinity` that never hold the (N·h·w)² matrix.

`GroupAffinity` is, for each pixel, the best match among each photo's pixels, averaged over the photos, plus the pixel's
bias, then a softmax over the pixels of its own photo [3.2]. Best matches within a photo are a running maximum and their
average a running sum, so one tile of products at a time is enough. Arithmetic is float32 whatever the inputs are.

`logits_kernel` shares a photo among several programs and leaves the softmax to its caller. `attention_kernel` is all in
one launch, as a TensorRT plugin that is compiled ahead of time must be, with one program per photo.

Triton compiles both for NVIDIA GPUs of compute capability 8.0 and up.
"""

# No annotations from __future__: Triton reads these, and wants objects.
from typing import NamedTuple

import triton
import triton.language as tl

Strides = tuple[int, ...]  # in elements: from photo to photo, channel to channel, pixel to pixel


class Tile(NamedTuple):
    """What one program multiplies at a time, in pixels and channels."""

    query: int
    key: int
    channel: int


# By bytes per element of query and key. Not tuned on a GPU. Two stages take 32 KB of shared memory; a launcher that is
# not Triton's may give no more than 48 KB.
TILES = {2: Tile(64, 64, 64), 4: Tile(64, 64, 32)}
LAUNCH = {"num_warps": 4, "num_stages": 2}


def constants(
    channels: int, pixels: int, query: Strides, key: Strides, tile: Tile, *, widen: bool = False
) -> dict[str, int | bool]:
    """What both kernels are compiled for; `widen` multiplies float32 copies of query and key."""
    axes = "photo", "channel", "pixel"
    return {
        "channels": channels,
        "pixels": pixels,
        **{f"query_{axis}": stride for axis, stride in zip(axes, query, strict=True)},
        **{f"key_{axis}": stride for axis, stride in zip(axes, key, strict=True)},
        **{f"tile_{name}": size for name, size in tile._asdict().items()},
        "widen": widen,
    }


@triton.jit  # type: ignore[untyped-decorator]
def _agreement(
    query: tl.tensor,  # first element of the query's photo
    key: tl.tensor,  # first element of the first photo
    photos: tl.tensor,
    first_pixel: tl.tensor,
    channels: tl.constexpr,
    pixels: tl.constexpr,
    query_channel: tl.constexpr,
    query_pixel: tl.constexpr,
    key_photo: tl.constexpr,
    key_channel: tl.constexpr,
    key_pixel: tl.constexpr,
    tile_query: tl.constexpr,
    tile_key: tl.constexpr,
    tile_channel: tl.constexpr,
    widen: tl.constexpr,
) -> tl.tensor:
    """Best match in each photo, averaged, of the pixels from `first_pixel` on: (tile_query,) float32."""
    rows = first_pixel + tl.arange(0, tile_query)
    total = tl.zeros((tile_query,), tl.float32)
    for _ in range(photos):
        best = tl.full((tile_query, tile_key), float("-inf"), tl.float32)
        for first_key in range(0, pixels, tile_key):
            columns = first_key + tl.arange(0, tile_key)
            affinity = tl.zeros((tile_query, tile_key), tl.float32)
            for first_channel in range(0, channels, tile_channel):
                depth = first_channel + tl.arange(0, tile_channel)
                left = tl.load(
                    query + rows[:, None] * query_pixel + depth[None, :] * query_channel,
                    mask=(rows < pixels)[:, None] & (depth < channels)[None, :],
                    other=0.0,
                )
                right = tl.load(
                    key + depth[:, None] * key_channel + columns[None, :] * key_pixel,
                    mask=(depth < channels)[:, None] & (columns < pixels)[None, :],
                    other=0.0,
                )
                if widen:
                    left = left.to(tl.float32)
                    right = right.to(tl.float32)
                # "ieee" keeps float32 what it is, where TF32 would keep 10 bits of the mantissa; halves do not care.
                affinity = tl.dot(left, right, affinity, input_precision="ieee")
            affinity = tl.where((columns < pixels)[None, :], affinity, float("-inf"))
            best = tl.maximum(best, affinity, propagate_nan=tl.PropagateNan.ALL)
        # tl.max leaves NaN out, but a network that has gone wrong must not look right.
        broken = tl.max((best != best).to(tl.int32), axis=1)
        total += tl.where(broken > 0, float("nan"), tl.max(best, axis=1))
        key += key_photo
    return total / photos


@triton.jit(do_not_specialize=["photos"])  # type: ignore[untyped-decorator]
def logits_kernel(
    query: tl.tensor,
    key: tl.tensor,
    pixel_bias: tl.tensor,  # N, h·w, contiguous
    photos: tl.tensor,
    logits: tl.tensor,  # N, h·w, contiguous, float32
    channels: tl.constexpr,
    pixels: tl.constexpr,
    query_photo: tl.constexpr,
    query_channel: tl.constexpr,
    query_pixel: tl.constexpr,
    key_photo: tl.constexpr,
    key_channel: tl.constexpr,
    key_pixel: tl.constexpr,
    tile_query: tl.constexpr,
    tile_key: tl.constexpr,
    tile_channel: tl.constexpr,
    widen: tl.constexpr,
) -> None:
    """What the softmax takes. Grid: (N, tiles of query pixels)."""
    photo = tl.program_id(0).to(tl.int64)
    first_pixel = tl.program_id(1) * tile_query
    agreement = _agreement(
        query + photo * query_photo, key, photos, first_pixel,
        channels, pixels, query_channel, query_pixel, key_photo, key_channel, key_pixel,
        tile_query, tile_key, tile_channel, widen,
    )  # fmt: skip
    pixel = first_pixel + tl.arange(0, tile_query)
    bias = tl.load(pixel_bias + photo * pixels + pixel, mask=pixel < pixels, other=0.0)
    tl.store(logits + photo * pixels + pixel, agreement + bias.to(tl.float32), mask=pixel < pixels)


@triton.jit(do_not_specialize=["photos"])  # type: ignore[untyped-decorator]
def attention_kernel(
    query: tl.tensor,  # in the order of TensorRT's launcher: inputs, scalars, outputs
    key: tl.tensor,
    pixel_bias: tl.tensor,  # N, h·w, contiguous
    photos: tl.tensor,
    attention: tl.tensor,  # N, h·w, contiguous
    channels: tl.constexpr,
    pixels: tl.constexpr,
    query_photo: tl.constexpr,
    query_channel: tl.constexpr,
    query_pixel: tl.constexpr,
    key_photo: tl.constexpr,
    key_channel: tl.constexpr,
    key_pixel: tl.constexpr,
    tile_query: tl.constexpr,
    tile_key: tl.constexpr,
    tile_channel: tl.constexpr,
    widen: tl.constexpr,
    tiles: tl.constexpr,  # a power of two, tiles · tile_query >= pixels
) -> None:
    """The whole operator. Grid: (N,). A program keeps its photo's logits in registers."""
    photo = tl.program_id(0).to(tl.int64)
    first = tl.arange(0, tiles)[:, None] * tile_query
    pixel = first + tl.arange(0, tile_query)[None, :]
    logits = tl.full((tiles, tile_query), float("-inf"), tl.float32)
    for first_pixel in range(0, pixels, tile_query):
        agreement = _agreement(
            query + photo * query_photo, key, photos, first_pixel,
            channels, pixels, query_channel, query_pixel, key_photo, key_channel, key_pixel,
            tile_query, tile_key, tile_channel, widen,
        )  # fmt: skip
        logits = tl.where(first == first_pixel, agreement[None, :], logits)
    bias = tl.load(pixel_bias + photo * pixels + pixel, mask=pixel < pixels, other=0.0)
    logits = tl.where(pixel < pixels, logits + bias.to(tl.float32), float("-inf"))
    weights = tl.exp(logits - tl.max(logits))
    weights /= tl.sum(weights)
    tl.store(attention + photo * pixels + pixel, weights.to(attention.dtype.element_ty), mask=pixel < pixels)


INTERPRETED = not isinstance(logits_kernel, triton.JITFunction)  # by TRITON_INTERPRET=1 when this was imported
