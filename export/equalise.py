"""Power-of-two equalisation: every activation of the inference network is brought near one size, at no cost.

ReLU, max-pooling and resizing commute with a positive factor, so a factor at a layer's output can be put into its
weights and taken out of those that read it. Powers of two are exact in binary floating point: in float32 the network
gives the same numbers as before. In half precision nothing overflows, and what matters stays clear of the subnormals.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gconet.export.inference import FoldedAffinity, InferenceNetwork
from gconet.runtime.preprocess import FloatArray

HALF_MAX = 65504.0
# What the largest activation of a domain is brought to, at most: 8 bits under HALF_MAX, since other photos may go
# higher than those of the calibration, and 22 bits above the subnormals.
LARGEST_WANTED = 256.0
AFFINITY = "affinity"
CORRELATED = "correlated features"


class Domain(NamedTuple):
    """Layers whose outputs share one factor, being added or alone, and the modules that read them."""

    layers: tuple[str, ...]
    readers: tuple[str, ...]


class DomainRange(NamedTuple):
    """What calibration found.

    Attributes
    ----------
    layers : names of modules of `InferenceNetwork`, or of a value between them.
    largest : absolute value over all calibration photos, before equalisation.
    factor : power of two by which it was multiplied.
    """

    layers: tuple[str, ...]
    largest: float
    factor: float

    @property
    def head_room(self) -> float:
        """How many times larger than any seen an activation may be before half precision overflows."""
        return HALF_MAX / (self.largest * self.factor) if self.largest else math.inf


def equalise(network: InferenceNetwork, groups: Sequence[FloatArray]) -> list[DomainRange]:
    """Equalise in place; the function computed stays the same.

    Parameters
    ----------
    network : float32.
    groups : calibration inputs (N, 3, S, S), each one group; at least one.

    Returns
    -------
    Every domain, in the order of execution; then the affinity, which keeps its size since a softmax follows.
    """
    measured = measure_ranges(network, groups)
    found = []
    for domain in domains(network):
        largest = max(measured[name] for name in (*domain.layers, *(f"into {name}" for name in domain.readers)))
        factor = power_of_two_towards(LARGEST_WANTED, largest)
        for name in domain.layers:
            _scale_output(network.get_submodule(name), factor)
        for name in domain.readers:
            _scale_input(network.get_submodule(name), factor)
        found.append(DomainRange(domain.layers, largest, factor))
    features = next(entry.factor for entry in found if entry.layers == (_encoder_layers(network)[-1],))
    largest = measured["into decoder.top.0"]
    factor = power_of_two_towards(LARGEST_WANTED, largest)
    network.gam.absorb(features, factor / features)
    _scale_input(network.get_submodule("decoder.top.0"), factor)
    found.append(DomainRange((CORRELATED,), largest, factor))
    if AFFINITY in measured:
        found.append(DomainRange((AFFINITY,), measured[AFFINITY], 1.0))
    return found


@torch.inference_mode()
def measure_ranges(network: InferenceNetwork, groups: Sequence[FloatArray]) -> dict[str, float]:
    """Largest absolute value of each convolution's output, under its name, of its input, under "into <name>", and of
    the affinity, under `AFFINITY`, over all groups.
    """
    largest: dict[str, float] = defaultdict(float)

    def note(name: str, values: Tensor) -> None:
        largest[name] = max(largest[name], values.abs().max().item())

    def note_layer(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            note(f"into {name}", inputs[0])
            note(name, output)

        return network.get_submodule(name).register_forward_hook(hook)

    def note_affinity(_: nn.Module, inputs: tuple[Tensor], query: Tensor) -> None:
        rows, columns = (x.transpose(0, 1).flatten(1) for x in (query, inputs[0]))  # C, N·h·w
        note(AFFINITY, rows.T @ columns)

    hooks = [note_layer(name) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    if isinstance(network.gam, FoldedAffinity):
        hooks.append(network.gam.query.register_forward_hook(note_affinity))
    try:
        for images in groups:
            network(torch.from_numpy(images))
    finally:
        for handle in hooks:
            handle.remove()
    return dict(largest)


def domains(network: InferenceNetwork) -> Iterator[Domain]:
    """All domains between convolutions, in the order of execution.

    The last encoder layer is read by the GAM and by the correlation too, which have their own ways of taking a factor.
    """
    encoder = _encoder_layers(network)
    for layer, successor in zip(encoder, [*encoder[1:], ""], strict=True):
        block = layer.rpartition(".")[0]
        readers = [successor] if successor else []
        if successor and not successor.startswith(block):
            readers.append(f"decoder.levels.{block.removeprefix('encoder.conv')}.lateral.0")
        yield Domain((layer,), tuple(readers))
    yield Domain(("decoder.top.0",), ("decoder.top.2",))
    above = "decoder.top.2"
    for level in (f"decoder.levels.{k}" for k in (4, 3, 2, 1)):
        yield Domain((f"{level}.lateral.0",), (f"{level}.lateral.2",))
        yield Domain((above, f"{level}.lateral.2"), (f"{level}.fuse.0",))
        yield Domain((f"{level}.fuse.0",), (f"{level}.fuse.2",))
        above = f"{level}.fuse.2"
    head = [above, *(f"decoder.levels.1.side.{index}" for index in (0, 2, 4))]
    for layer, successor in pairwise(head):
        yield Domain((layer,), (successor,))


def power_of_two_towards(wanted: float, largest: float) -> float:
    """The largest power of two that brings `largest` to at most `wanted`; 1 if there is nothing to bring."""
    return 2.0 ** math.floor(math.log2(wanted / largest)) if largest else 1.0


def _encoder_layers(network: InferenceNetwork) -> list[str]:
    return [f"encoder.{name}" for name, layer in network.encoder.named_modules() if isinstance(layer, nn.Conv2d)]


@torch.no_grad()
def _scale_output(layer: nn.Module, factor: float) -> None:
    for parameter in layer.parameters():
        parameter.mul_(factor)


@torch.no_grad()
def _scale_input(layer: nn.Module, factor: float) -> None:
    layer.get_parameter("weight").div_(factor)
