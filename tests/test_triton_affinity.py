"""The fused affinity against the plain one: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import copy
import sys
import tracemalloc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from gconet.export.inference import FoldedAffinity, InferenceNetwork
from gconet.export.operators import DOMAIN, group_affinity
from gconet.export.triton_affinity import fused_group_affinity
from gconet.runtime.errors import TargetError, UsageError
from gconet.train.model import GCoNet

triton = pytest.importorskip("triton", reason="needs Triton, which is made for Linux on x86-64: pip install triton")

from gconet.engines import affinity_kernels  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs an NVIDIA GPU")
Inputs = tuple[Tensor, Tensor, Tensor]
Shape = tuple[int, int, int]
Form = Callable[[Tensor, Tensor, Tensor], Tensor]
# One tile in part; several tiles, the last with one pixel or one channel in it; GCoNet's 512 channels.
SHAPES = [(20, 4, 4), (33, 5, 13), (512, 3, 5)]


def make_inputs(
    photos: int, shape: tuple[int, int, int], dtype: torch.dtype, bias: torch.dtype | None = None
) -> Inputs:
    """Random query, key and pixel bias; products of unit variance, so that the softmax is neither flat nor one-hot."""
    generator = torch.Generator().manual_seed(photos)
    channels, height, width = shape
    query, key = (torch.randn(photos, *shape, generator=generator) for _ in range(2))
    pixel_bias = torch.randn(photos, 1, height, width, generator=generator)
    query /= channels**0.5
    return query.to(DEVICE, dtype), key.to(DEVICE, dtype), pixel_bias.to(DEVICE, bias or dtype)


def one_launch(query: Tensor, key: Tensor, pixel_bias: Tensor) -> Tensor:
    """Launch `attention_kernel` as TensorRT does: contiguous tensors, one program per photo."""
    photos, channels, height, width = query.shape
    pixels = height * width
    tile = affinity_kernels.TILES[query.element_size()]
    strides = channels * pixels, pixels, 1
    widen = affinity_kernels.INTERPRETED and query.dtype == torch.bfloat16  # see fused_group_affinity
    attention = torch.full_like(pixel_bias, float("nan"))
    affinity_kernels.attention_kernel[photos,](
        query,
        key,
        pixel_bias,
        photos,
        attention,
        **affinity_kernels.constants(channels, pixels, strides, strides, tile, widen=widen),
        tiles=triton.next_power_of_2(triton.cdiv(pixels, tile.query)),
        **affinity_kernels.LAUNCH,
    )
    return attention


def exact(query: Tensor, key: Tensor, pixel_bias: Tensor) -> Tensor:
    """The plain form in float64."""
    return group_affinity(query.double(), key.double(), pixel_bias.double())


@pytest.fixture(params=[fused_group_affinity, one_launch], ids=["operator", "one launch"])
def fused(request: pytest.FixtureRequest) -> Form:
    """Both ways to run the kernels."""
    form: Form = request.param
    return form


def test_kernels_run_in_the_interpreter_exactly_where_there_is_no_gpu() -> None:
    assert (DEVICE == "cpu") == affinity_kernels.INTERPRETED


@pytest.mark.parametrize("photos", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fused_affinity_equals_the_plain_one(fused: Form, photos: int, shape: Shape) -> None:
    inputs = make_inputs(photos, shape, torch.float32)
    attention = fused(*inputs)
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention.double(), exact(*inputs), rtol=0, atol=1e-5)
    torch.testing.assert_close(attention.sum((1, 2, 3)), torch.ones(photos, device=DEVICE), rtol=0, atol=1e-5)


def test_padding_of_the_last_tile_is_never_the_best_match(fused: Form) -> None:
    """All products are negative, so that a padding of zeros would win."""
    query, key, pixel_bias = make_inputs(2, (33, 5, 13), torch.float32)
    query, key = query.abs(), -key.abs()
    torch.testing.assert_close(fused(query, key, pixel_bias).double(), exact(query, key, pixel_bias), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", [None, torch.float32], ids=["same bias", "float32 bias"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_halves_are_rounded_once_at_the_end(fused: Form, dtype: torch.dtype, bias: torch.dtype | None) -> None:
    """Products and sums are float32, so what is left is one rounding to the result's type beside float32's 1e-5.

    To nearest, half of eps; but where a kernel stores bfloat16, the interpreter cuts the rest off, up to eps.
    """
    inputs = make_inputs(2, (70, 5, 13), dtype, bias)
    attention = fused(*inputs)
    assert attention.dtype == (bias or dtype)
    cut_off = fused is one_launch and attention.dtype == torch.bfloat16 and affinity_kernels.INTERPRETED
    rounding = torch.finfo(attention.dtype).eps / (1 if cut_off else 2)
    torch.testing.assert_close(attention.double(), exact(*inputs), rtol=rounding, atol=1e-5)


def test_halves_do_not_overflow_where_the_plain_form_does(fused: Form) -> None:
    query, key, pixel_bias = make_inputs(2, (256, 4, 4), torch.float16, torch.float32)
    query, key = query * 400, key * 400  # products reach 4e5, 65504 is the largest half
    assert not group_affinity(query, key, pixel_bias).isfinite().all()
    torch.testing.assert_close(fused(query, key, pixel_bias).double(), exact(query, key, pixel_bias), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, of the interpreter
@pytest.mark.parametrize("broken", ["query", "key", "pixel_bias"])
def test_not_a_number_spreads_as_far_as_in_the_plain_form(fused: Form, broken: str) -> None:
    inputs = dict(zip(("query", "key", "pixel_bias"), make_inputs(2, (20, 4, 5), torch.float32), strict=True))
    inputs[broken][1, 0, 2, 3] = float("nan")
    expected = group_affinity(**inputs).isnan()
    assert expected.any()
    assert torch.equal(fused(*inputs.values()).isnan(), expected)


@pytest.mark.parametrize("layout", ["channels last", "cut out"])
def test_any_memory_layout(layout: str) -> None:
    query, key, pixel_bias = make_inputs(2, (33, 5, 13), torch.float32)
    if layout == "channels last":
        query, key = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (query, key))
    else:
        query, key, pixel_bias = query[:, :, 1:4, 2:], key[:, :, 1:4, 2:], pixel_bias[:, :, 1:4, 2:]
    attention = fused_group_affinity(query, key, pixel_bias)
    torch.testing.assert_close(attention.double(), exact(query, key, pixel_bias), rtol=0, atol=1e-5)


def memory_of(photos: int) -> tuple[int, int]:
    """Bytes that PyTorch allocates in all, and NumPy at most at a time, for photos of 64 pixels in the interpreter."""
    inputs = make_inputs(photos, (8, 4, 16), torch.float32)
    activities = [torch.profiler.ProfilerActivity.CPU]
    tracemalloc.start()
    try:
        with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
            fused_group_affinity(*inputs)
        _, in_numpy = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages()), in_numpy


@pytest.mark.skipif(DEVICE == "cuda", reason="counts what the interpreter allocates; the next test is for GPUs")
def test_memory_grows_with_the_group_and_not_with_its_square() -> None:
    """The operator allocates by PyTorch, linear in N; its interpreted kernels by NumPy, the same for any N."""
    memory_of(1)  # what is allocated once
    (small, small_tiles), (large, large_tiles) = memory_of(2), memory_of(8)
    assert 0 < large <= 4 * small
    assert large < 4 * (8 * 64) ** 2 / 50  # of the matrix
    assert large_tiles < 1.5 * small_tiles


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_large_group_needs_little_memory_on_the_gpu(dtype: torch.dtype) -> None:
    inputs = make_inputs(64, (512, 14, 14), dtype, torch.float32)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attention = fused_group_affinity(*inputs)
    assert torch.cuda.max_memory_allocated() - before < 2**20  # the matrix would take 600 MB in float32
    torch.testing.assert_close(attention.double(), exact(*inputs), rtol=0, atol=1e-5)


@needs_gpu
@pytest.mark.gpu
def test_compiled_network_with_the_fused_affinity_on_the_gpu(
    tiny_network: GCoNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # convolutions are rounded to 10 bits otherwise
    network = InferenceNetwork(copy.deepcopy(tiny_network)).to(DEVICE)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    with torch.inference_mode():
        expected = network(images)
        assert isinstance(network.gam, FoldedAffinity)
        network.gam.affinity = fused_group_affinity
        torch.testing.assert_close(torch.compile(network, fullgraph=True)(images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("photos", [1, 3])
@torch.inference_mode()
def test_network_with_the_fused_affinity_equals_the_plain_one(tiny_network: GCoNet, photos: int) -> None:
    network = InferenceNetwork(copy.deepcopy(tiny_network)).to(DEVICE)
    images = torch.randn(photos, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    features = network.encoder(images)[-1]
    expected, maps = network.gam(features), network(images)
    assert isinstance(network.gam, FoldedAffinity)
    network.gam.affinity = fused_group_affinity
    found = network.gam(features)
    torch.testing.assert_close(found.attention, expected.attention, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.consensus, expected.consensus, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network(images), maps, rtol=0, atol=1e-6)


def test_operator_keeps_pytorchs_rules_for_custom_operators() -> None:
    inputs = make_inputs(2, (20, 4, 5), torch.float32, torch.float32)
    opcheck(torch.ops.gconet.group_affinity.default, inputs)


@torch.inference_mode()
def test_operator_goes_through_torch_compile_in_one_graph_for_any_group() -> None:
    compiled = torch.compile(fused_group_affinity, backend="aot_eager", fullgraph=True, dynamic=True)
    for photos in (2, 3):
        inputs = make_inputs(photos, (20, 4, 5), torch.float32)
        torch.testing.assert_close(compiled(*inputs), group_affinity(*inputs), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the exporter
def test_network_with_the_fused_affinity_exports_the_visible_operator(tiny_network: GCoNet) -> None:
    gam = InferenceNetwork(tiny_network).gam
    assert isinstance(gam, FoldedAffinity)
    gam.affinity = fused_group_affinity
    program = torch.onnx.export(gam, (torch.zeros(2, 16, 4, 4),), dynamo=True, verbose=False)
    assert program is not None
    assert [node.op_type for node in program.model_proto.graph.node if node.domain == DOMAIN] == ["GroupAffinity"]


def test_operator_has_no_gradient() -> None:
    query, key, pixel_bias = make_inputs(1, (20, 4, 4), torch.float32)
    attention = fused_group_affinity(query.requires_grad_(), key, pixel_bias)
    with pytest.raises((RuntimeError, NotImplementedError), match="autograd"):
        attention.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("shapes", "types", "message"),
    [
        (
            [(2, 8, 4, 4), (2, 8, 4, 5), (2, 1, 4, 4)],
            [torch.float32] * 3,
            "not (2, 8, 4, 4), (2, 8, 4, 5), (2, 1, 4, 4)",
        ),
        ([(2, 8, 4, 4), (2, 8, 4, 4), (2, 8, 4, 4)], [torch.float32] * 3, "and (N, 1, h, w), not"),
        ([(2, 8, 4), (2, 8, 4), (2, 1, 4)], [torch.float32] * 3, "takes (N, C, h, w)"),
        ([(2, 8, 4, 4), (2, 8, 4, 4), (2, 1, 4, 4)], [torch.float16, torch.float32, torch.float32], "of one type"),
        ([(2, 8, 4, 4), (2, 8, 4, 4), (2, 1, 4, 4)], [torch.float64] * 3, "torch.float64"),
    ],
)
def test_what_does_not_fit_is_told(shapes: list[tuple[int, ...]], types: list[torch.dtype], message: str) -> None:
    tensors = (torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, types, strict=True))
    with pytest.raises(UsageError) as error:
        fused_group_affinity(*tensors)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cpu_without_the_interpreter_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity_kernels, "INTERPRETED", False)
    inputs = (tensor.cpu() for tensor in make_inputs(1, (20, 4, 4), torch.float32))
    with pytest.raises(TargetError, match=r"not on cpu: move the network there with \.cuda\(\)"):
        fused_group_affinity(*inputs)


def test_missing_triton_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(TargetError, match="pip install triton"):
        fused_group_affinity(*make_inputs(1, (20, 4, 4), torch.float32))
