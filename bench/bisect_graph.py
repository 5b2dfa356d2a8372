"""The layers of a graph, whatever library holds it, under names that are the same in all of its forms.

Exporters, optimisers and converters rename tensors and fuse nodes, but weights keep the name of the module they belong
to. So a layer with weights has that module's name, `encoder.conv4.conv4_2`, and stands for the tensor after its bias
and activation. An operation without weights is named after itself and the layers its inputs come from:
`Resize(decoder.top.2)`. Casts, reshapes, scales and quantisation are no layers.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

# X.weight, X.weight_quantized, X.bias/duplicated; X.layer.weight where the export has put X into a wrapper.
PARAMETER = re.compile(r"(?P<layer>.+?)(\.layer)?\.(weight|bias)(?![a-z])")
SAME_OP: Mapping[str, str] = {
    "Convolution": "Conv",
    "FusedConv": "Conv",
    "Multiply": "Mul",
    "Subtract": "Sub",
    "Divide": "Div",
    "Interpolate": "Resize",
    "Gemm": "MatMul",
    "FusedMatMul": "MatMul",
    "MatMulIntegerToFloat": "MatMul",
}  # OpenVINO's, and ONNX Runtime's optimiser's, to ONNX's; a prefix QLinear is cut off
ACTIVATIONS = frozenset({"Relu", "Sigmoid", "Clip", "Clamp"})
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})  # a layer if both operands are computed, else a bias or a scale
OPERATIONS = frozenset({
    "Conv", "MaxPool", "AveragePool", "Resize", "MatMul", "ReduceMax", "ReduceMean", "ReduceSum", "Softmax", "Scan",
})  # fmt: skip
SHAPES = frozenset({"Shape", "ShapeOf"})  # what follows of them alone is sizes, not values
CASTS_LIKE = frozenset({"CastLike", "ConvertLike"})  # to the type of their second input, whatever its value


@dataclass(frozen=True)
class Node:
    """One operation: its name in its library, its inputs, its first output; tensors by name."""

    op: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, and the names of the constants among their inputs."""

    nodes: Sequence[Node]
    constants: Collection[str]


def onnx_graph(model: onnx.ModelProto) -> Graph:
    """The main graph of a model; functions must be inlined first."""
    nodes = [
        _node(node.op_type, list(filter(None, node.input)), node.output[0])
        for node in model.graph.node
        if node.op_type != "Constant"
    ]
    constants = {tensor.name for tensor in model.graph.initializer}
    return Graph(nodes, constants | {node.output[0] for node in model.graph.node if node.op_type == "Constant"})


def openvino_graph(model: Any) -> Graph:
    """An `openvino.Model`; a tensor has the friendly name of the operation that makes it."""
    nodes, constants = [], set()
    for operation in model.get_ordered_ops():
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        if kind == "Constant":
            constants.add(name)
        elif kind not in ("Parameter", "Result"):
            inputs = [value.get_source_output().get_node().get_friendly_name() for value in operation.inputs()]
            nodes.append(_node(kind, inputs, name))
    return Graph(nodes, constants)


def name_layers(graph: Graph) -> dict[str, str]:
    """Layers in topological order: name to tensor. Of several with one name the later ones get #2, #3, …"""
    fixed = _fixed_tensors(graph)
    readers: dict[str, list[Node]] = defaultdict(list)  # of values; who asks for a shape does not count
    for node in graph.nodes:
        for name in set(node.inputs) if node.op not in SHAPES else ():
            readers[name].append(node)
    sources: dict[str, frozenset[str]] = {}  # layers with weights a tensor comes from, through layers without
    layers: dict[str, str] = {}
    counts: Counter[str] = Counter()
    absorbed: set[str] = set()  # outputs of biases and activations that belong to a layer named before
    for node in graph.nodes:
        if node.output in fixed:
            continue
        module = _module_of(node, fixed)
        values = [name for name in node.inputs if name not in fixed]
        above = frozenset[str]().union(*(sources.get(name, frozenset()) for name in values))
        sources[node.output] = frozenset({module}) if module else above
        if node.output in absorbed:
            continue
        if module:
            chain = _through_activation(node, module, fixed, readers)
            absorbed.update(chain)
            tensor = chain[-1] if chain else node.output
            name = module
        elif _is_operation(node, values):
            tensor, name = node.output, f"{_op(node)}({', '.join(sorted(above)) or 'images'})"
        else:
            continue
        counts[name] += 1
        layers[name if counts[name] == 1 else f"{name}#{counts[name]}"] = tensor
    return layers


def name_modules(graph: Graph) -> dict[str, str]:
    """Values that a module's weights or biases take part in directly, by tensor, and that module."""
    fixed = _fixed_tensors(graph)
    modules = {node.output: _module_of(node, fixed) for node in graph.nodes if node.output not in fixed}
    return {tensor: module for tensor, module in modules.items() if module}


def layer_inputs(graph: Graph, layers: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """For each of the layers (name to tensor) those among them that its value is computed from directly."""
    names = {tensor: name for name, tensor in layers.items()}
    above: dict[str, frozenset[str]] = {}  # tensor -> nearest layers at or above it
    inputs: dict[str, frozenset[str]] = {}
    for node in graph.nodes:
        nearest = frozenset[str]().union(*(above.get(name, frozenset()) for name in node.inputs))
        name = names.get(node.output)
        if name is not None:
            inputs[name] = nearest
        above[node.output] = nearest if name is None else frozenset({name})
    return inputs


def _node(op: str, inputs: Sequence[str], output: str) -> Node:
    return Node(op, tuple(inputs[:1] if op in CASTS_LIKE else inputs), output)


def _fixed_tensors(graph: Graph) -> dict[str, str | None]:
    """Tensors that depend on no photo (weights, sizes), and the module they belong to, if one."""
    fixed = {name: match["layer"] if (match := PARAMETER.match(name)) else None for name in graph.constants}
    for node in graph.nodes:
        if node.op in SHAPES or all(name in fixed for name in node.inputs):
            fixed[node.output] = _module_of(node, fixed)
    return fixed


def _module_of(node: Node, fixed: Mapping[str, str | None]) -> str | None:
    """The module whose weight or bias a node reads."""
    return next(filter(None, map(fixed.get, node.inputs)), None)


def _through_activation(
    node: Node, module: str, fixed: Mapping[str, str | None], readers: Mapping[str, Sequence[Node]]
) -> list[str]:
    """Outputs after a node up to its layer's last bias or activation; casts and scales in between are passed."""
    passed: list[str] = []
    length, tensor = 0, node.output
    while len(readers[tensor]) == 1:
        (reader,) = readers[tensor]
        values = [name for name in reader.inputs if name not in fixed]
        owner = _module_of(reader, fixed)
        if len(values) != 1 or _is_operation(reader, values) or owner not in (None, module):
            break
        tensor = reader.output
        passed.append(tensor)
        if owner or _op(reader) in ACTIVATIONS:
            length = len(passed)
    return passed[:length]


def _is_operation(node: Node, values: Sequence[str]) -> bool:
    return _op(node) in OPERATIONS or (_op(node) in ARITHMETIC and len(values) > 1)


def _op(node: Node) -> str:
    op = node.op.removeprefix("QLinear")
    return SAME_OP.get(op, op)
