"""The affinity as a TensorRT plugin: what TensorRT is told of it, and which nodes the parser gives to it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import onnx.checker
import pytest
import torch
from conftest import require_tensorrt_rtx

from gconet.engines import affinity_plugin
from gconet.engines.affinity_plugin import DOMAIN, NAME, NAMESPACE, PLUGIN_ID, call_plugin, register_plugin
from gconet.engines.affinity_ptx import CompiledKernel
from gconet.export import operators
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.tensorrt_library import collecting_logger, load_tensorrt


class Described(SimpleNamespace):
    """A stand-in for TensorRT's TensorDesc."""

    def like(self) -> Described:
        return Described(**vars(self))


class ImaginaryTensorRt(ModuleType):
    """`tensorrt` and `tensorrt.plugin` as far as a plugin meets them; keeps what is registered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("imaginary_tensorrt")
        self.__version__ = "11.4"
        self.DataType = SimpleNamespace(FLOAT="FLOAT", HALF="HALF", BF16="BF16")
        self.registered: dict[str, Any] = {}
        plugin = ModuleType("imaginary_tensorrt.plugin")
        vars(plugin).update(
            op=SimpleNamespace(),
            TensorDesc=Described,
            KernelLaunchParams=SimpleNamespace,
            SymIntExprs=SimpleNamespace(from_tuple=tuple),
            SymInt32=lambda expression: ("int32", expression),
            AutoTuneCombination=lambda types, layouts: (types, layouts),
            register=self._keep("register"),
            autotune=self._keep("autotune"),
            aot_impl=self._keep("aot_impl"),
        )
        self.plugin = plugin
        monkeypatch.setitem(sys.modules, self.__name__, self)
        monkeypatch.setitem(sys.modules, plugin.__name__, plugin)

    def _keep(self, what: str) -> Any:
        def decorator(plugin_id: str) -> Any:
            namespace, _, name = plugin_id.partition("::")

            def keep(function: Any) -> Any:
                assert what not in self.registered
                self.registered[what] = function
                vars(self.plugin.op).setdefault(namespace, SimpleNamespace(**{name: plugin_id}))
                return function

            return keep

        return decorator


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> ImaginaryTensorRt:
    """A TensorRT with Python plugins, and a compiler that notes what it is asked for."""
    pytest.importorskip("triton", reason="needs Triton, which is made for Linux on x86-64: pip install triton")
    imaginary = ImaginaryTensorRt(monkeypatch)

    def compile_nothing(*asked: object) -> CompiledKernel:
        imaginary.registered["compiled"] = asked
        return CompiledKernel("kernel", "ptx", 128, 16384)

    monkeypatch.setattr(affinity_plugin, "compile_attention", compile_nothing)
    return imaginary


def described(trt: ImaginaryTensorRt, *shape: int, dtype: str = "HALF") -> Described:
    """A tensor as TensorRT describes it."""
    return Described(
        shape=shape, shape_expr=[f"axis {index}" for index in range(4)], dtype=getattr(trt.DataType, dtype)
    )


def test_tensorrt_accepts_the_plugins_name() -> None:
    """It refuses dots, and names of its own."""
    assert PLUGIN_ID == "gconet::GroupAffinity"
    assert "." not in PLUGIN_ID
    assert (DOMAIN, NAME) == (operators.DOMAIN, "GroupAffinity")


def test_plugin_describes_its_output_as_the_bias_and_is_registered_once(tensorrt: ImaginaryTensorRt) -> None:
    register_plugin(tensorrt, "8.9")
    register_plugin(tensorrt, "12.0")
    bias = described(tensorrt, -1, 1, 14, 14, dtype="FLOAT")
    features = described(tensorrt, -1, 512, 14, 14)
    describe = tensorrt.registered["register"]
    assert describe(features, features, bias) == bias
    assert describe.__annotations__ == dict.fromkeys(("query", "key", "pixel_bias", "return"), Described)


def test_plugin_takes_every_mix_of_types_the_operator_takes(tensorrt: ImaginaryTensorRt) -> None:
    register_plugin(tensorrt, "8.0")
    combinations = tensorrt.registered["autotune"](None, None, None, None)
    assert combinations == [
        (f"{operand}, {operand}, {bias}, {bias}", "LINEAR")
        for operand, bias in [("FP32", "FP32"), ("FP16", "FP32"), ("FP16", "FP16"), ("BF16", "FP32"), ("BF16", "BF16")]
    ]


def test_plugin_launches_one_program_per_photo(tensorrt: ImaginaryTensorRt) -> None:
    register_plugin(tensorrt, "8.9")
    features = described(tensorrt, -1, 512, 14, 13)
    bias = described(tensorrt, -1, 1, 14, 13, dtype="FLOAT")
    name, ptx, launch, scalars = tensorrt.registered["aot_impl"](features, features, bias, (bias,), 0)
    assert tensorrt.registered["compiled"] == (512, 14 * 13, "fp16", "fp32")
    assert (name, ptx) == ("kernel", "ptx")
    assert vars(launch) == {"grid_x": "axis 0", "block_x": 128, "shared_mem": 16384}
    assert scalars == (("int32", "axis 0"),)
    types = tensorrt.registered["aot_impl"].__annotations__["return"].__args__
    assert types[:2] == (str, str)


def test_photos_of_unknown_size_are_refused(tensorrt: ImaginaryTensorRt) -> None:
    register_plugin(tensorrt, "8.9")
    features = described(tensorrt, -1, 512, -1, 14)
    with pytest.raises(TargetError, match="not -1×512×-1×14: export the graph with a fixed --size"):
        tensorrt.registered["aot_impl"](features, features, features, (features,), 0)


def test_what_cannot_have_the_plugin_is_told(tensorrt: ImaginaryTensorRt, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match=r"compute capability 8\.0 and up, not 7\.5: build without it"):
        register_plugin(tensorrt, "7.5")
    monkeypatch.delattr(tensorrt.plugin, "aot_impl")
    with pytest.raises(TargetError, match=r"TensorRT 11\.4 cannot compile plugins into plans: pip install -U tensorrt"):
        register_plugin(tensorrt, "8.9")
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(tensorrt.plugin, "aot_impl", None, raising=False)
    with pytest.raises(TargetError, match="pip install triton"):
        register_plugin(tensorrt, "8.9")
    assert not tensorrt.registered


def test_tensorrt_for_rtx_is_said_to_have_no_plugins() -> None:
    require_tensorrt_rtx()
    with pytest.raises(TargetError, match=r"has no Python plugins .*: build without the affinity plugin"):
        register_plugin(load_tensorrt("tensorrt-rtx"), "8.9")


def affinity_graph() -> onnx.ModelProto:
    """A graph of the operator alone, with its function; float32, photos of 8×5×4."""
    inputs = {"query": (8, 5, 4), "key": (8, 5, 4), "pixel_bias": (1, 5, 4)}
    node = onnx.helper.make_node(NAME, list(inputs), ["attention"], name="affinity", domain=DOMAIN)
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["group", *shape])
        for name, shape in {**inputs, "attention": (1, 5, 4)}.items()
    ]
    opsets = [onnx.helper.make_opsetid("", operators.OPSET), onnx.helper.make_opsetid(DOMAIN, operators.VERSION)]
    graph = onnx.helper.make_graph([node], "affinity", values[:3], values[3:])
    model = onnx.helper.make_model(graph, opset_imports=opsets, functions=operators.functions())
    onnx.checker.check_model(model, full_check=True)
    return model


def test_graph_that_calls_the_plugin_is_a_copy_without_the_function() -> None:
    graph = affinity_graph()
    before = graph.SerializeToString()
    calling = call_plugin(graph)
    assert graph.SerializeToString() == before
    assert [function.name for function in calling.functions] == ["DepthwiseCorrelation"]
    (node,) = calling.graph.node
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert attributes == {"plugin_namespace": NAMESPACE.encode(), "aot": 1}


def test_graph_without_the_operator_is_refused() -> None:
    graph = affinity_graph()
    graph.graph.node[0].op_type = "DepthwiseCorrelation"
    with pytest.raises(UsageError, match="the network has no GroupAffinity"):
        call_plugin(graph)


def test_parser_takes_the_plugin_where_it_is_called_and_the_function_elsewhere() -> None:
    """By the parser of TensorRT for RTX, which is TensorRT's; the creator notes that it is asked, and declines."""
    require_tensorrt_rtx()
    trt = load_tensorrt("tensorrt-rtx")
    asked: list[str] = []

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_namespace, self.plugin_version = NAME, NAMESPACE, "1"
            self.field_names = trt.PluginFieldCollection([])

        def create_plugin(self, name: str, _fields: Any, _phase: Any) -> None:
            asked.append(name)

    logger, _ = collecting_logger(trt)
    builder = trt.Builder(logger)

    def parse(graph: onnx.ModelProto) -> tuple[bool, list[str]]:
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, logger)
        parsed = parser.parse(graph.SerializeToString())
        return parsed, [network.get_layer(index).type.name for index in range(network.num_layers)]

    graph = affinity_graph()
    assert parse(call_plugin(graph)) == (False, [])  # not registered yet, and no function to fall back on
    registry, creator = trt.get_plugin_registry(), Creator()
    assert registry.register_creator(creator, NAMESPACE)
    try:
        parsed, layers = parse(graph)
        assert parsed
        assert "MATRIX_MULTIPLY" in layers
        assert asked == []
        parse(call_plugin(graph))
        assert len(asked) == 1
    finally:
        registry.deregister_creator(creator)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("photos", [1, 2, 40])
def test_plan_with_the_plugin_equals_the_plain_form_on_the_gpu(photos: int) -> None:
    try:
        trt = load_tensorrt("tensorrt")
    except TargetError as error:
        pytest.skip(str(error))
    register_plugin(trt, "{}.{}".format(*torch.cuda.get_device_capability()))
    logger, errors = collecting_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(call_plugin(affinity_graph()).SerializeToString()), list(errors)
    assert [network.get_layer(index).type for index in range(network.num_layers)] == [trt.LayerType.PLUGIN_V3]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    shapes = {"query": (8, 5, 4), "key": (8, 5, 4), "pixel_bias": (1, 5, 4)}
    for name, shape in shapes.items():
        profile.set_shape(name, (1, *shape), (2, *shape), (40, *shape))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, list(errors)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    inputs = {name: torch.randn(photos, *shape, device="cuda") for name, shape in shapes.items()}
    attention = torch.empty_like(inputs["pixel_bias"])
    for name, tensor in inputs.items():
        assert context.set_input_shape(name, tuple(tensor.shape))
        assert context.set_tensor_address(name, tensor.data_ptr())
    assert context.set_tensor_address("attention", attention.data_ptr())
    stream = torch.cuda.current_stream()
    assert context.execute_async_v3(stream.cuda_stream), list(errors)
    stream.synchronize()
    expected = operators.group_affinity(*(tensor.double() for tensor in inputs.values()))
    torch.testing.assert_close(attention.double(), expected, rtol=0, atol=1e-5)
