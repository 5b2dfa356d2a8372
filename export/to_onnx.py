"""Trace the inference network to a checked ONNX graph with a dynamic `group` axis."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence

import onnx
import torch

from gconet.export.calibration import read_calibration
from gconet.export.inference import InferenceNetwork
from gconet.export.inner_tensors import name_inner_tensors
from gconet.export.operators import DOMAIN, OPSET, VERSION, functions
from gconet.export.precision import lower
from gconet.export.winograd import use_winograd
from gconet.runtime.preprocess import FloatArray, Preprocessing
from gconet.train.model import GCoNet

BF16_OPSET = 22  # the first whose convolution takes bfloat16
TRACED_GROUP = 3  # any number above 1: 0 and 1 would be taken for constants


def export_detect(
    model: GCoNet,
    size: int,
    arithmetic: str = "fp32",
    calibration: Sequence[FloatArray] | None = None,
    winograd: Collection[str] = (),
) -> onnx.ModelProto:
    """Export the graph `images` (group, 3, size, size) → `maps` (group, 1, size, size), both float32.

    Parameters
    ----------
    model : left unchanged.
    size : side of the square input, a multiple of 16.
    arithmetic : "fp32", or "fp16" or "bf16" for a graph of that type but for the islands of `export.precision`.
    calibration : groups of inputs (N, 3, size, size) to equalise a narrow type on; None for the example photos.
    winograd : convolutions to put into Winograd's form, by their names in the inference network; float32 only.

    Returns
    -------
    A model with inline weights, the operators of `ai.gconet` and their functions, that has passed the ONNX checker.
    """
    network = InferenceNetwork(copy.deepcopy(model))
    if arithmetic != "fp32":
        lower(network, arithmetic, read_calibration(None, Preprocessing(size)) if calibration is None else calibration)
    use_winograd(network, winograd)
    return export_network(network, size)


def export_network(network: InferenceNetwork, size: int, opset: int | None = None) -> onnx.ModelProto:
    """Export an inference network as it is, by default at the oldest opset that serves; see `export_detect`."""
    if opset is None:
        opset = BF16_OPSET if any(parameter.dtype == torch.bfloat16 for parameter in network.parameters()) else OPSET
    images = torch.zeros(TRACED_GROUP, 3, size, size)
    with quiet_exporter():
        program = torch.onnx.export(
            network,
            (images,),
            input_names=["images"],
            output_names=["maps"],
            dynamic_shapes=({0: torch.export.Dim("group", min=1)},),
            opset_version=opset,
            dynamo=True,
        )
    if program is None:
        raise RuntimeError("the exporter returned no program")
    graph = program.model_proto
    graph.functions.extend(functions(opset))
    if DOMAIN not in {opset.domain for opset in graph.opset_import}:
        graph.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    graph.producer_name = "gconet-deploy"
    _strip_trace_metadata(graph)
    name_inner_tensors(graph)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _strip_trace_metadata(graph: onnx.ModelProto) -> None:
    """Drop stack traces of the tracing machine: they hold its paths and make builds differ from place to place."""
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info, *graph.graph.initializer):
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    del graph.metadata_props[:]


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter's progress lines and library warnings off the user's screen."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
