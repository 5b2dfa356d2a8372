"""`config.pbtxt`: what Triton Inference Server is told of a model, in protobuf's text format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gconet.runtime.manifest import Manifest

USUAL_GROUP = 5  # photos; what warm-up runs, where a plan's profiles do not say
FLOAT = "TYPE_FP32"  # of every tensor of a bundle, whatever the engine computes in
GROUP_AXIS = -1

# For whoever tunes the file: joining requests is Triton's habit, and would change the answers here.
HEADER = """\
# GCoNet, graph {graph}. A request is one group of photos, of any size: the first axis of `images` is the group. Triton
# must not join requests, as another group has another answer: max_batch_size stays 0, without dynamic_batching.
"""


class Symbol(str):
    """A value of a protobuf enumeration, which is written without quotes."""


Message = Mapping[str, Any]  # field -> a message, a string, number, truth value or symbol; or a sequence of such


@dataclass(frozen=True)
class Tensor:
    """Name and shape of an input or output; -1 stands for the number of photos."""

    name: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class ServingOptions:
    """How Triton shall run the models.

    Attributes
    ----------
    name : of the models, before the graph's: `gconet` gives `gconet_detect`.
    device : "cpu", or "cuda" for all GPUs that the server sees.
    instances : how many requests a model answers at the same time (on each GPU).
    threads : of the CPU for each instance; None leaves the choice to the engine.
    """

    name: str = "gconet"
    device: str = "cpu"
    instances: int = 1
    threads: int | None = None


def config_text(graph: str, manifest: Manifest, signature: Signature, options: ServingOptions) -> str:
    """The `config.pbtxt` of one graph of a bundle.

    Parameters
    ----------
    graph : its name, such as `detect`.
    manifest : the bundle's.
    signature : of the graph, as its file has it: OpenVINO's backend wants the very same dimensions.
    """
    on_gpu = options.device == "cuda"
    instances = {"count": options.instances, "kind": Symbol("KIND_GPU" if on_gpu else "KIND_CPU")}
    # Of a plan's profiles Triton loads the first only, groups of one photo, unless they are named.
    profiles = {"profile": [str(index) for index in range(len(manifest.profiles))]} if manifest.profiles else {}
    config: Message = {
        "name": f"{options.name}_{graph}",
        "backend": manifest.target,
        "max_batch_size": 0,
        "input": [_tensor(tensor) for tensor in signature.inputs],
        "output": [_tensor(tensor) for tensor in signature.outputs],
        "instance_group": [{**instances, **profiles}],
        **(_full_fp32() if on_gpu and manifest.target == "onnxruntime" else {}),
        "parameters": [
            {"key": key, "value": {"string_value": value}}
            for key, value in {**_engine(manifest, options), **_facts(manifest)}.items()
        ],
        "model_warmup": [_warm_up(signature, count) for count in _usual_groups(manifest)],
    }
    return HEADER.format(graph=graph) + to_text(config)


def to_text(message: Message, indent: str = "") -> str:
    """A message in protobuf's text format; strings must be ASCII. Fields that repeat are given as sequences."""
    lines = []
    for key, value in message.items():
        if isinstance(value, Mapping):
            lines.append(f"{indent}{key} {{\n{to_text(value, indent + '  ')}{indent}}}\n")
        elif isinstance(value, str | int):
            lines.append(f"{indent}{key}: {_scalar(value)}\n")
        elif value and isinstance(value[0], Mapping):
            lines.extend(to_text({key: entry}, indent) for entry in value)
        else:
            lines.append(f"{indent}{key}: [ {', '.join(map(_scalar, value))} ]\n")
    return "".join(lines)


def _scalar(value: str | int | bool) -> str:
    if isinstance(value, Symbol):
        return str(value)
    return json.dumps(value)  # its quotes and escapes are protobuf's too, and so are true and false


def _tensor(tensor: Tensor) -> Message:
    return {"name": tensor.name, "data_type": Symbol(FLOAT), "dims": tensor.dims}


def _engine(manifest: Manifest, options: ServingOptions) -> dict[str, str]:
    """Parameters that the backend understands, by the names it gives them."""
    threads = options.threads
    if manifest.target == "onnxruntime":
        return {} if threads is None else {"intra_op_thread_count": str(threads)}
    if manifest.target != "openvino":
        return {}
    # Instances share one compiled model, so each needs a stream of it, and threads are those of all streams together.
    parameters = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": str(options.instances)}
    if manifest.precision == "bf16":
        parameters["HINT_BF16"] = "YES"  # the backend has no INFERENCE_PRECISION_HINT; the IR itself is fp32
    if threads is not None:
        parameters["INFERENCE_NUM_THREADS"] = str(threads * options.instances)
    return parameters


def _facts(manifest: Manifest) -> dict[str, str]:
    """Parameters for clients, who must make the network's input: backends pass over what they do not know."""
    facts = {
        "preprocessing": json.dumps(dataclasses.asdict(manifest.preprocessing)),
        "max_group": str(manifest.max_group),
        "precision": manifest.precision,
    }
    checkpoint = manifest.checkpoint.get("sha256")
    return facts if checkpoint is None else {**facts, "checkpoint_sha256": checkpoint}


def _full_fp32() -> Message:
    """ONNX Runtime on GPUs, as in a session of ours: TF32 would keep 10 bits of the mantissa."""
    cuda = {"name": "cuda", "parameters": {"key": "use_tf32", "value": "0"}}
    return {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [cuda]}}}


def _usual_groups(manifest: Manifest) -> tuple[int, ...]:
    usual = tuple(usual for _, usual, _ in manifest.profiles)
    return usual or (min(USUAL_GROUP, manifest.max_group),)


def _warm_up(signature: Signature, count: int) -> Message:
    """A request that runs before the model is called ready.

    Zeros, which is photos of the mean colour: Triton's random data are random bits, NaN and infinities among them.
    """
    inputs = [
        {
            "key": tensor.name,
            "value": {
                "data_type": Symbol(FLOAT),
                "dims": [count if size == GROUP_AXIS else size for size in tensor.dims],
                "zero_data": True,
            },
        }
        for tensor in signature.inputs
    ]
    return {"name": f"group of {count}", "batch_size": 1, "inputs": inputs}
