"""`ai.gconet::GroupAffinity` as a TensorRT plugin whose kernel is compiled into the plan.

A plan built with it needs neither Python nor Triton to run. It is for large groups: its memory grows with N, where that
of the operator's function body grows with N². The function body stays what plans contain by default.

    register_plugin(tensorrt, "8.9")
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    parser.parse(call_plugin(graph).SerializeToString())

It is not for TensorRT for RTX, which has no Python plugins. Not measured on a GPU.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import onnx

from gconet.engines.affinity_ptx import CAPABILITY, TRITON, compile_attention
from gconet.engines.installed import import_or_explain
from gconet.runtime.errors import TargetError, UsageError, one_line

DOMAIN = "ai.gconet"
NAME = "GroupAffinity"
NAMESPACE = "gconet"  # of the plugin: TensorRT takes no dot in one
PLUGIN_ID = f"{NAMESPACE}::{NAME}"


def call_plugin(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `graph` that TensorRT's parser imports with the plugin.

    The parser prefers a function of the model to a plugin of its name, in some versions always, from 10.15 on unless
    the node names the plugin's namespace; the flag ENABLE_PLUGIN_OVERRIDE finds only plugins that have none. So the
    nodes name it and the function is left out, which serves every version and fails where the plugin is not registered.

    Raises
    ------
    UsageError
        If there is no such operator in the graph.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    nodes = [node for node in copy.graph.node if (node.domain, node.op_type) == (DOMAIN, NAME)]
    if not nodes:
        raise UsageError(f"the network has no {NAME}, such as one trained without the GAM: build without the plugin")
    for node in nodes:
        node.attribute.append(onnx.helper.make_attribute("plugin_namespace", NAMESPACE))
        node.attribute.append(onnx.helper.make_attribute("aot", 1))  # the compiled kernel or nothing
    kept = [function for function in copy.functions if (function.domain, function.name) != (DOMAIN, NAME)]
    del copy.functions[:]
    copy.functions.extend(kept)
    return copy


def register_plugin(trt: ModuleType, compute_capability: str) -> None:
    """Make the plugin known to TensorRT's parser, once per process.

    Parameters
    ----------
    trt : the module `tensorrt`, 10.9 or newer.
    compute_capability : of the GPU the plan is for, such as "8.9".

    Raises
    ------
    TargetError
        If this TensorRT, this GPU or this installation cannot have it.
    """
    if float(compute_capability) * 10 < CAPABILITY:
        raise TargetError(
            f"the affinity plugin is compiled for compute capability {CAPABILITY / 10} and up, "
            f"not {compute_capability}: build without it"
        )
    try:
        trtp = importlib.import_module(f"{trt.__name__}.plugin")
    except ImportError as error:
        raise TargetError(
            f"{trt.__name__} {trt.__version__} has no Python plugins ({one_line(error)}): build without the affinity "
            "plugin, or with --target tensorrt"
        ) from error
    if not hasattr(trtp, "aot_impl"):
        raise TargetError(f"TensorRT {trt.__version__} cannot compile plugins into plans: pip install -U tensorrt")
    import_or_explain("triton", TRITON)  # now rather than in the middle of a build
    if not hasattr(getattr(trtp.op, NAMESPACE, None), NAME):
        _define(trt, trtp)


def _define(trt: ModuleType, trtp: ModuleType) -> None:
    """Hand TensorRT the functions that describe, tune and compile the plugin; it reads their names and annotations.

    There is no `impl`, the callback into Python: a plan must not depend on Python.
    """
    types = {trt.DataType.FLOAT: "fp32", trt.DataType.HALF: "fp16", trt.DataType.BF16: "bf16"}

    def describe(query: Any, key: Any, pixel_bias: Any) -> Any:  # noqa: ARG001
        return pixel_bias.like()

    def combinations(query: Any, key: Any, pixel_bias: Any, outputs: Any) -> list[Any]:  # noqa: ARG001
        pairs = [(operand, bias) for operand in ("FP32", "FP16", "BF16") for bias in dict.fromkeys(("FP32", operand))]
        return [trtp.AutoTuneCombination(f"{operand}, {operand}, {bias}, {bias}", "LINEAR") for operand, bias in pairs]

    def compiled(query: Any, key: Any, pixel_bias: Any, outputs: Any, tactic: int) -> tuple[Any, ...]:  # noqa: ARG001
        photos, channels, height, width = query.shape
        if min(channels, height, width) < 1:
            raise TargetError(
                "the affinity plugin takes any number of photos of one size, not "
                f"{photos}×{channels}×{height}×{width}: export the graph with a fixed --size"
            )
        kernel = compile_attention(channels, height * width, types[query.dtype], types[pixel_bias.dtype])
        launch = trtp.KernelLaunchParams()
        launch.grid_x = query.shape_expr[0]
        launch.block_x = kernel.threads
        launch.shared_mem = kernel.shared_bytes
        scalars = trtp.SymIntExprs.from_tuple([trtp.SymInt32(query.shape_expr[0])])
        return kernel.name, kernel.ptx, launch, scalars

    tensor = trtp.TensorDesc
    kernel_and_launch = tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]  # type: ignore[name-defined]
    describe.__annotations__ = dict.fromkeys(("query", "key", "pixel_bias", "return"), tensor)
    combinations.__annotations__ = {}
    compiled.__annotations__ = {"return": kernel_and_launch}
    trtp.register(PLUGIN_ID)(describe)
    trtp.autotune(PLUGIN_ID)(combinations)
    trtp.aot_impl(PLUGIN_ID)(compiled)
