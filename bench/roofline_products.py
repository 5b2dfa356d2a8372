"""Ways to multiply matrices, by precision, and to copy memory: with numpy, PyTorch and OpenVINO, of those installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gconet.engines.installed import import_or_explain
from gconet.runtime.errors import TargetError

SIDES = 512, 1024, 2048  # of square matrices
CONVOLUTION = 256, 56  # channels and side of a 3×3 convolution, as in the middle of VGG-16
STEP = np.float32(0.01)  # of quantised values; any does

COPY_BYTES = 256 * 2**20  # source and target each: far more than a core's share of any last-level cache

Copy = tuple[int, Callable[[], object]]  # bytes read and written, and the call that does it
Prepared = tuple[str, int, Callable[[], object]]  # what it is, its operations, and the call that does them


@dataclass(frozen=True)
class Product:
    """One library in one precision; `prepare` sets up one size after the other."""

    by: str
    precision: str
    prepare: Callable[[], Iterator[Prepared]]


def cpu_products(threads: int | None) -> list[Product]:
    """All there are here; importing the libraries takes a moment."""
    products = [Product("numpy", "fp32", _numpy)]
    if importlib.util.find_spec("torch"):
        import torch

        if threads:
            torch.set_num_threads(threads)
        products += [
            Product("PyTorch", name, partial(_torch, dtype))
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        ]
    if not importlib.util.find_spec("openvino"):
        return products
    ov = import_or_explain("openvino", ("openvino",))
    core = ov.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    settings = {"INFERENCE_NUM_THREADS": threads} if threads else {}
    products += [
        Product("OpenVINO", name, partial(_openvino, core, settings, name))
        for name, capability in (("fp32", "FP32"), ("bf16", "BF16"), ("int8", "INT8"))
        if capability in able
    ]
    return products


def cpu_copies(threads: int | None) -> Iterator[Copy]:
    """numpy copies on one core, PyTorch on all."""
    source = np.ones(COPY_BYTES // 4, np.float32)
    target = np.empty_like(source)
    yield 2 * COPY_BYTES, partial(np.copyto, target, source)
    if not importlib.util.find_spec("torch"):
        return
    import torch

    if threads:
        torch.set_num_threads(threads)
    yield 2 * COPY_BYTES, partial(torch.from_numpy(target).copy_, torch.from_numpy(source))


def cuda_products() -> list[Product]:
    """PyTorch on the first GPU, each call waited for; raises TargetError if this PyTorch reaches none."""
    torch = import_or_explain("torch", ("torch",))
    if not torch.cuda.is_available():
        raise TargetError("the GPU's best rates need PyTorch with CUDA: see pytorch.org/get-started/locally")
    torch.backends.cuda.matmul.allow_tf32 = False
    floats = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    products = [Product("PyTorch", name, partial(_torch_cuda, torch.mm, dtype)) for name, dtype in floats.items()]
    return [*products, Product("PyTorch", "int8", partial(_torch_cuda, torch._int_mm, torch.int8))]


def cuda_copies() -> Iterator[Copy]:
    """One half of a buffer on the GPU to the other."""
    torch = import_or_explain("torch", ("torch",))
    source, target = torch.ones(2, COPY_BYTES // 4, device="cuda")
    yield 2 * COPY_BYTES, _waited_for(partial(target.copy_, source))


def _torch_cuda(multiply: Callable[..., object], dtype: Any) -> Iterator[Prepared]:
    import torch

    for side in (*SIDES, 4096, 8192):
        a = torch.ones(side, side, device="cuda").to(dtype)
        yield f"matrices of {side}", 2 * side**3, _waited_for(partial(multiply, a, a))


def _waited_for(call: Callable[[], object]) -> Callable[[], None]:
    import torch

    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


def _numpy() -> Iterator[Prepared]:
    for side in SIDES:
        a, b = np.ones((2, side, side), np.float32)
        yield f"matrices of {side}", 2 * side**3, partial(np.matmul, a, b, out=np.empty_like(a))


def _torch(dtype: Any) -> Iterator[Prepared]:
    import torch

    for side in SIDES:
        a = torch.ones(side, side, dtype=dtype)
        yield f"matrices of {side}", 2 * side**3, partial(torch.mm, a, a, out=torch.empty_like(a))


def _openvino(core: Any, settings: dict[str, Any], precision: str) -> Iterator[Prepared]:
    import openvino as ov
    import openvino.opset13 as ops

    hint = {"bf16": "bf16"}.get(precision, "f32")
    config = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", **settings}

    def compiled(graph: Any, given: Any, shape: tuple[int, ...]) -> Callable[[], object]:
        request = core.compile_model(ov.Model([graph], [given], "product"), "CPU", config).create_infer_request()
        request.set_input_tensor(ov.Tensor(np.ones(shape, np.float32)))
        return request.infer

    def operands(shape: tuple[int, ...], weights: tuple[int, ...]) -> tuple[Any, Any, Any]:
        """Input, the same as the product takes it, and constant weights; in int8 both carry their quantisation."""
        given = ops.parameter(list(shape), np.float32)
        if precision != "int8":
            return given, given, ops.constant(np.full(weights, STEP))
        largest = np.float32(255 * STEP)
        rounded = ops.fake_quantize(given, np.float32(0), largest, np.float32(0), largest, 256)
        whole = ops.convert(ops.constant(np.ones(weights, np.int8)), np.float32)
        return given, rounded, ops.multiply(whole, ops.constant(np.full([1] * len(weights), STEP)))

    for side in SIDES:
        given, left, right = operands((side, side), (side, side))
        call = compiled(ops.matmul(left, right, False, False), given, (side, side))
        yield f"matrices of {side}", 2 * side**3, call
    channels, side = CONVOLUTION
    shape = 1, channels, side, side
    given, left, right = operands(shape, (channels, channels, 3, 3))
    ones = [1, 1]
    call = compiled(ops.convolution(left, right, ones, ones, ones, ones), given, shape)
    yield f"3×3 convolution, {channels} channels, {side}×{side}", 2 * 9 * channels**2 * side**2, call
