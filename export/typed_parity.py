"""Parity of a graph in its own arithmetic on this CPU: what can be known of an engine where it does not run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch

from gconet.bench.parity import ParityRow, compare
from gconet.bench.reference import eager_maps
from gconet.bench.tolerances import tolerance
from gconet.engines.target import Target
from gconet.export.calibration import read_calibration
from gconet.export.graphs import FLOATS_OF_INT8, TAKES_UNSIGNED, has_typed_graph
from gconet.export.inference import InferenceNetwork
from gconet.export.precision import lower
from gconet.export.quantise import calibrate
from gconet.export.rounded_convolutions import round_convolutions
from gconet.export.wide_accumulation import accumulate_widely
from gconet.runtime.preprocess import FloatArray
from gconet.train.checkpoint import Checkpoint
from gconet.train.model import GCoNet

TARGET = "pytorch"  # its name in the table of tolerances
GROUP_SIZES = (1, 2, 5)


def typed_network(model: GCoNet, precision: str, groups: Sequence[FloatArray]) -> InferenceNetwork:
    """The inference network as an fp16 or bf16 graph has it, calibrated on groups; runs fast on any CPU."""
    network = InferenceNetwork(copy.deepcopy(model))
    lower(network, precision, groups)
    accumulate_widely(network)
    return network


def graph_network(
    checkpoint: Checkpoint, precision: str, target: Target, calibration: Path | None
) -> InferenceNetwork | None:
    """The network as the graph computes it that `make_graph` makes of the same arguments.

    None where the graph is plain float32, be it that the target computes in another type.
    """
    if precision != "int8" and not has_typed_graph(precision, target):
        return None
    model, groups = checkpoint.network(), read_calibration(calibration, checkpoint.info.preprocessing)
    if precision != "int8":
        return typed_network(model, precision, groups)
    network, plans = calibrate(model, groups, TAKES_UNSIGNED[target.name], floats=FLOATS_OF_INT8[target.name])
    round_convolutions(network, plans)
    accumulate_widely(network)
    return network


def measure_typed_parity(
    model: GCoNet, network: InferenceNetwork, precision: str, inputs: FloatArray, sizes: Sequence[int] = GROUP_SIZES
) -> list[ParityRow]:
    """Compare with the eager float32 network.

    Parameters
    ----------
    model : the reference.
    network : of `graph_network`, or its exact form.
    inputs : (N, 3, S, S), at least as many as the largest group.
    sizes : of groups, the first so many of the inputs each.
    """
    limits = tolerance(TARGET, precision)
    rows = []
    with torch.inference_mode():
        for size in sizes:
            maps: FloatArray = network(torch.from_numpy(inputs[:size])).numpy()
            rows.append(compare(eager_maps(model, inputs[:size]), maps, limits))
    return rows
