"""3×3 convolutions with a quarter of the multiplications, in standard operators: F(4×4, 3×3) of Winograd's algorithms
(Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Exact in real arithmetic.

A tile of 6×6 inputs and the kernel are each taken to 36 numbers, multiplied there, and brought back as a tile of 4×4
outputs: 36 multiplications where the sum over a 3×3 window needs 144. Over all tiles and channels the 36 numbers
make 36 matrix products, which engines do at their best rate; what surrounds them is memory traffic, so this
pays where there are many channels. Weights become four times as many.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gconet.export.inference import InferenceNetwork

OUTPUT, KERNEL = 4, 3  # sides of a tile of outputs, and of the kernel
TILE = OUTPUT + KERNEL - 1

# Polynomials are evaluated here and at infinity. With 2 for 1/2, as is common, errors are twice as large.
POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-1, 2))

# Channels in and out from which it pays: with 64, the decoder's, the traffic costs what the multiplications save.
FEWEST_CHANNELS = 128


class Transforms(NamedTuple):
    """The three matrices of one dimension, float64: y = output · ((kernel · g) * (data · d)).

    Attributes
    ----------
    data : (TILE, TILE), kernel : (TILE, KERNEL), output : (OUTPUT, TILE).
    """

    data: Tensor
    kernel: Tensor
    output: Tensor


def transforms() -> Transforms:
    """The matrices of `POINTS`, by Toom and Cook's multiplication of polynomials, transposed."""
    data, kernel = [], []
    for point in POINTS:
        others = [other for other in POINTS if other != point]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        data.append([*_with_roots(others), Fraction(0)])
        kernel.append([point**power / scale for power in range(KERNEL)])
    data.append(_with_roots(POINTS))  # the point at infinity
    kernel.append([Fraction(power == KERNEL - 1) for power in range(KERNEL)])
    output = [[*(point**power for point in POINTS), Fraction(power == OUTPUT - 1)] for power in range(OUTPUT)]
    return Transforms(*(_matrix(rows) for rows in (data, kernel, output)))


class WinogradConvolution(nn.Module):
    """A 3×3 convolution of stride 1 that keeps the spatial size, in this form."""

    def __init__(self, direct: nn.Conv2d) -> None:
        super().__init__()
        data, kernel, output = transforms()
        weight, dtype = direct.weight.detach().double(), direct.weight.dtype
        products = torch.einsum("ai,kcij,bj->abkc", kernel, weight, kernel).flatten(0, 1)
        bias = torch.zeros(len(weight)) if direct.bias is None else direct.bias.detach()
        self.weight = _constant(products, dtype)  # 36, K, C
        self.data, self.output = _constant(torch.kron(data, data), dtype), _constant(torch.kron(output, output), dtype)
        self.bias = _constant(bias[:, None, None], dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W) to (N, K, H, W)."""
        _, outputs, channels = self.weight.shape
        height, width = x.shape[2:]
        down, across = (-(-side // OUTPUT) for side in (height, width))  # tiles
        # Tiles overlap by two pixels. Cells do not: each holds the first four rows and columns of a tile, whose others
        # are the first ones of the cells below and beside it. One more cell each way, and zeros around all of them.
        below, beside = ((tiles + 1) * OUTPUT - side - 1 for tiles, side in ((down, height), (across, width)))
        cells = F.pad(x, (1, beside, 1, below)).reshape(-1, channels, down + 1, OUTPUT, across + 1, OUTPUT)
        cells = cells.permute(3, 5, 1, 0, 2, 4)  # 4, 4, C, N, down + 1, across + 1
        overlap = TILE - OUTPUT
        rows = torch.cat([cells[..., :down, :], cells[:overlap, ..., 1:, :]], dim=0)
        tiles = torch.cat([rows[..., :across], rows[:, :overlap, ..., 1:]], dim=1)  # 6, 6, C, N, down, across
        transformed = self.data @ tiles.reshape(TILE**2, -1)
        products = self.weight @ transformed.reshape(TILE**2, channels, -1)  # 36, K, N·down·across
        answers = (self.output @ products.reshape(TILE**2, -1)).reshape(OUTPUT, OUTPUT, outputs, -1, down, across)
        planes = answers.permute(3, 2, 4, 0, 5, 1).reshape(-1, outputs, down * OUTPUT, across * OUTPUT)
        if planes.shape[2:] != x.shape[2:]:
            planes = planes[:, :, :height, :width]
        return planes + self.bias


def eligible(network: InferenceNetwork) -> dict[str, nn.Conv2d]:
    """The encoder's convolutions that have channels enough for this form to pay, by name in the network."""
    return {
        f"encoder.{name}": layer
        for name, layer in network.encoder.named_modules()
        if isinstance(layer, nn.Conv2d) and min(layer.in_channels, layer.out_channels) >= FEWEST_CHANNELS
    }


def use_winograd(network: nn.Module, names: Collection[str]) -> None:
    """Put convolutions of a network into this form, in place."""
    for name in names:
        parent, _, child = name.rpartition(".")
        layer = network.get_submodule(name)
        if not isinstance(layer, nn.Conv2d):
            raise TypeError(f"{name} is no convolution")
        setattr(network.get_submodule(parent), child, WinogradConvolution(layer))


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, the constant first, of the product of (x − root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(root * value for value in coefficients), Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def _matrix(rows: list[list[Fraction]]) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)


def _constant(values: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(values.to(dtype), requires_grad=False)
