"""In which form an engine does each convolution faster, direct or Winograd's: both are timed, on this machine.

Processors and engines differ in what a multiplication costs them beside memory traffic, so nothing is assumed.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gconet.bench.plain_engines import Opener, onnxruntime_opener, openvino_opener
from gconet.bench.timing import answer_once, time_interleaved
from gconet.export.inference import InferenceNetwork
from gconet.export.to_onnx import quiet_exporter
from gconet.export.winograd import WinogradConvolution, eligible
from gconet.runtime.errors import UsageError
from gconet.train.checkpoint import Checkpoint
from gconet.train.model import GCoNet

FORMS = ("auto", "direct", "winograd")

# Targets that can be asked: their engines multiply in float32, and choose no form by themselves. TensorRT does choose.
OPENERS: Mapping[str, Callable[[], Opener]] = {
    "openvino": lambda: openvino_opener("fp32"),
    "onnxruntime": onnxruntime_opener,
}

GROUP = 2  # the pair that latency is told of
ROUNDS = 5
PAYS = 0.95  # of the direct form's time; for less, weights four times as large are not worth it


@dataclass(frozen=True)
class TimedShape:
    """Convolutions of one shape, and what a pair of photos takes in either form.

    Attributes
    ----------
    names : of the convolutions, in the inference network.
    channels : in and out.
    side : of the square input, in pixels.
    direct_ms, winograd_ms : medians, of one convolution between two small ones; see `_in_company`.
    """

    names: tuple[str, ...]
    channels: tuple[int, int]
    side: int
    direct_ms: float
    winograd_ms: float

    @property
    def winograd(self) -> bool:
        """Whether Winograd's form pays."""
        return self.winograd_ms < PAYS * self.direct_ms


def can_choose(target: str, precision: str) -> bool:
    """Whether the form of convolutions is ours to choose in engines of this target and precision."""
    return precision == "fp32" and target in OPENERS


def check_form(form: str, target: str, precision: str) -> None:
    """Raise UsageError if Winograd's form is asked for where it cannot be had."""
    if form == "winograd" and not can_choose(target, precision):
        raise UsageError(
            f"--convolutions winograd is for fp32 engines of {' and '.join(OPENERS)}, not for {target} {precision}: "
            "leave it out, or add --precision fp32 --target openvino"
        )


def choose_forms(
    checkpoint: Checkpoint, target: str, precision: str, form: str, report: Callable[[str, str], None]
) -> dict[str, Any]:
    """The convolutions that get Winograd's form, for the manifest.

    Parameters
    ----------
    form : one of `FORMS`.
    report : is told of the choice, as report("forms", what came of it).

    Returns
    -------
    "winograd": their names; "timed": each `TimedShape` as a dictionary, if they were. Empty if nothing is to choose.
    """
    if form == "direct" or not can_choose(target, precision):
        return {}
    network, size = checkpoint.network(), checkpoint.info.preprocessing.size
    if form == "winograd":
        names = list(eligible(InferenceNetwork(network)))
        report("forms", f"{len(names)} convolutions in Winograd's, as asked for")
        return {"winograd": names}
    with tqdm(desc="convolutions", unit="shape", disable=None, leave=False) as progress:
        timed = time_forms(network, size, target, progress.update)
    faster = [shape for shape in timed if shape.winograd]
    chosen = [name for shape in faster for name in shape.names]
    if faster:
        gains = sorted(shape.direct_ms / shape.winograd_ms for shape in faster)
        report("forms", f"{len(chosen)} convolutions in Winograd's: {gains[0]:.1f} to {gains[-1]:.1f} × as fast here")
    return {"winograd": chosen, "timed": [dataclasses.asdict(shape) for shape in timed]} if timed else {}


def time_forms(model: GCoNet, size: int, target: str, progress: Callable[[], object]) -> list[TimedShape]:
    """Time the convolutions that have both forms in the engine of a target, one of `OPENERS`.

    Parameters
    ----------
    size : side of the network's square input.
    progress : called after each shape.

    Raises
    ------
    TargetError
        If the engine's library is not installed.
    """
    network = InferenceNetwork(model)
    layers, open_graph, shapes = eligible(network), OPENERS[target](), []
    for (inputs, outputs, side), names in _by_shape(network, layers, size).items():
        direct = layers[names[0]]
        images = np.random.default_rng(0).standard_normal((GROUP, 1, side, side), np.float32)
        with tempfile.TemporaryDirectory() as folder:
            engines = {
                form: open_graph(_export(_in_company(layer, inputs, outputs), images, Path(folder, f"{form}.onnx")))
                for form, layer in (("direct", direct), ("winograd", WinogradConvolution(direct)))
            }
            contenders = {form: partial(engine, images) for form, engine in engines.items()}
            timings = time_interleaved(contenders, ROUNDS, lambda: None, before=partial(answer_once, contenders))
        medians = (timings[form].percentile(50) for form in ("direct", "winograd"))
        shapes.append(TimedShape(tuple(names), (inputs, outputs), side, *medians))
        progress()
    return shapes


def _by_shape(
    network: InferenceNetwork, layers: Mapping[str, nn.Conv2d], size: int
) -> Mapping[tuple[int, int, int], Sequence[str]]:
    names: dict[tuple[int, int, int], list[str]] = defaultdict(list)
    hooks = []
    for name, layer in layers.items():

        def note(layer: nn.Module, inputs: tuple[Tensor], _output: object, name: str = name) -> None:
            assert isinstance(layer, nn.Conv2d)
            names[layer.in_channels, layer.out_channels, inputs[0].shape[-1]].append(name)

        hooks.append(layer.register_forward_hook(note))
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return names


def _in_company(layer: nn.Module, inputs: int, outputs: int) -> nn.Module:
    """A convolution between two of a single channel, which cost little beside it.

    Engines keep what convolutions exchange in a layout of their own. Alone, a direct convolution would be charged for
    two changes of layout that the network spares it: 147 ms in place of 84, of 64 channels at 224×224.
    """
    return nn.Sequential(nn.Conv2d(1, inputs, 1), nn.ReLU(), layer, nn.ReLU(), nn.Conv2d(outputs, 1, 1))


def _export(network: nn.Module, images: np.ndarray[tuple[int, ...], np.dtype[np.float32]], path: Path) -> Path:
    with quiet_exporter():
        torch.onnx.export(
            network,
            (torch.from_numpy(images),),
            path,
            input_names=["images"],
            output_names=["maps"],
            dynamo=True,
        )
    return path
