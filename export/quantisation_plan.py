"""How each convolution is rounded to 8 bits: steps of inputs and weights, and what the bias makes up for.

Inputs have one step per tensor, weights one per output channel. All are symmetric: zero stays zero exactly, which the
padding of convolutions needs, and no engine has to correct for an offset.

A range is what most photos reach, and a little more. The largest value of all photos would grow with their number, and
widen the steps of every photo for the sake of one; clipping for the least square error, and equalising channels so that
each uses the whole range, gain finer steps and lose more where other photos go further than those of the calibration.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gconet.export.activation_samples import Inputs
from gconet.export.equalise import domains
from gconet.export.inference import InferenceNetwork

SIGNED_LEVELS, UNSIGNED_LEVELS = 127, 255
# The range, from the largest value of each photo: of these the quantile, times the head-room. Masks agree to 0.990 with
# 0.9 and 1.1 on 172 real photos, to 0.986 with the largest of all, to 0.982 with that and head-room of 1.25.
PEAK_QUANTILE, HEAD_ROOM = 0.9, 1.1


@dataclass(frozen=True)
class LayerPlan:
    """One convolution in 8 bits.

    Attributes
    ----------
    input_step : of its input.
    unsigned : whether its input is never negative and is stored as 0 to 255, else as −127 to 127.
    weight_steps : (O,) float32.
    bias_shift : (O,) float32, to be added to the bias: minus the mean error of rounding, as seen on photos.
    """

    input_step: float
    unsigned: bool
    weight_steps: Tensor
    bias_shift: Tensor


@torch.no_grad()
def plan_layers(
    network: InferenceNetwork, inputs: Mapping[str, Inputs], unsigned: bool, half: Collection[str] = ()
) -> dict[str, LayerPlan]:
    """Plan every convolution of a network.

    Parameters
    ----------
    inputs : of each convolution, by layer.
    unsigned : store what is never negative without a sign, in steps half as wide; not every engine takes that.
    half : layers between half-precision tensors: their steps are numbers of that type.
    """
    plans = {}
    for readers in shared_inputs(network):
        without_sign = unsigned and not any(inputs[name].signed for name in readers)
        levels = UNSIGNED_LEVELS if without_sign else SIGNED_LEVELS
        peaks = torch.stack([inputs[name].peaks for name in readers]).amax(dim=0)
        step = HEAD_ROOM * peaks.quantile(PEAK_QUANTILE).item() / levels or 1.0  # nothing but zeros takes any
        if any(name in half for name in readers):
            step = half_not_below(torch.tensor(step)).item()
        for name in readers:
            weight = network.get_submodule(name).get_parameter("weight")
            rounded, weight_steps = round_weight(weight, name in half)
            pixels = inputs[name].pixels
            exact, found = taps(weight) @ pixels.mean(dim=0), taps(rounded) @ round_to(pixels, step, levels).mean(dim=0)
            plans[name] = LayerPlan(step, without_sign, weight_steps, exact - found)
    return plans


def shared_inputs(network: InferenceNetwork) -> Iterator[tuple[str, ...]]:
    """Convolutions by the tensor they read: directly, or through max-pooling, which commutes with rounding."""
    yield ("encoder.conv1.conv1_1",)
    for domain in domains(network):
        if domain.readers:
            yield domain.readers
    gam = tuple(f"gam.{name}" for name, layer in network.gam.named_modules() if isinstance(layer, nn.Conv2d))
    if gam:
        yield gam
    yield ("decoder.top.0",)


def round_to(values: Tensor, step: float, levels: int) -> Tensor:
    """Values as an engine reads them back from 8 bits."""
    return (values / step).round().clamp(-levels, levels) * step


def round_weight(weight: Tensor, half: bool = False) -> tuple[Tensor, Tensor]:
    """A weight (O, C, k, k) rounded to 8 bits, and the steps (O,) of its output channels, perhaps in half precision."""
    steps = weight.abs().amax(dim=(1, 2, 3)) / SIGNED_LEVELS
    steps = torch.where(steps > 0, steps, torch.ones_like(steps))  # a channel of zeros takes any
    if half:
        steps = half_not_below(steps)
    spread = steps[:, None, None, None]
    return (weight / spread).round() * spread, steps


def half_not_below(steps: Tensor) -> Tensor:
    """The smallest half-precision numbers that are not below positive float32 ones, in float32: nothing is clipped."""
    half = steps.half()
    return torch.where(half.float() < steps, torch.nextafter(half, torch.full_like(half, torch.inf)), half).float()


def taps(weight: Tensor) -> Tensor:
    """(O, C): what a weight (O, C, k, k) does to an input that is the same everywhere."""
    return weight.sum(dim=(2, 3))
