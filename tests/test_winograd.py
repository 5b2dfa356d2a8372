"""Winograd's convolution against the plain one, in real arithmetic and in float32, alone and in the network."""

import copy

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
import torch
from torch import nn

from gconet.engines.graph_parts import cut
from gconet.export import winograd
from gconet.export.inference import InferenceNetwork
from gconet.export.to_onnx import export_detect
from gconet.export.winograd import KERNEL, OUTPUT, WinogradConvolution, eligible, transforms, use_winograd
from gconet.train.model import GCoNet


def test_transforms_convolve_one_tile() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels, kernel = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (OUTPUT + KERNEL - 1, KERNEL))
    matrices = transforms()
    found = matrices.output @ ((matrices.kernel @ kernel) * (matrices.data @ pixels))
    expected = torch.stack([pixels[start : start + KERNEL] @ kernel for start in range(OUTPUT)])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (14, 14), (1, 1), (3, 5), (12, 7)])
def test_equals_the_plain_convolution(height: int, width: int) -> None:
    torch.manual_seed(0)
    direct = nn.Conv2d(5, 3, 3, padding=1, dtype=torch.float64)
    images = torch.randn(2, 5, height, width, dtype=torch.float64)
    found = WinogradConvolution(direct)(images)
    assert found.shape == (2, 3, height, width)
    torch.testing.assert_close(found, direct(images), rtol=1e-10, atol=1e-10)


def test_float32_is_a_few_roundings_away() -> None:
    torch.manual_seed(0)
    direct = nn.Conv2d(256, 32, 3, padding=1)
    images = torch.randn(1, 256, 14, 14).relu()
    exact = copy.deepcopy(direct).double()(images.double())
    error = (WinogradConvolution(direct)(images) - exact).abs().max() / exact.abs().max()
    assert 0 < error < 2e-5


def test_a_convolution_without_bias() -> None:
    torch.manual_seed(0)
    direct = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    images = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(WinogradConvolution(direct)(images), direct(images), rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def many_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four channels count as many: all but the first convolution's three."""
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 4)


def test_network_answers_the_same(tiny_network: GCoNet) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = InferenceNetwork(copy.deepcopy(tiny_network))
    names = list(eligible(network))
    use_winograd(network, names)
    assert sum(isinstance(layer, WinogradConvolution) for layer in network.modules()) == len(names) > 10
    with torch.no_grad():
        torch.testing.assert_close(network(images), tiny_network(images), rtol=0, atol=2e-5)


def test_only_convolutions_are_replaced(tiny_network: GCoNet) -> None:
    with pytest.raises(TypeError, match="encoder is no convolution"):
        use_winograd(InferenceNetwork(copy.deepcopy(tiny_network)), ["encoder"])


def test_exported_graph_has_a_dynamic_group_and_all_its_parts(tiny_network: GCoNet) -> None:
    names = list(eligible(InferenceNetwork(tiny_network)))
    graph, direct = export_detect(tiny_network, 32, winograd=names), export_detect(tiny_network, 32)
    convolutions = [sum(node.op_type == "Conv" for node in g.graph.node) for g in (graph, direct)]
    assert convolutions[0] == convolutions[1] - len(names)
    assert cut(graph).keys() == cut(direct).keys()
    session = onnxruntime.InferenceSession(onnx.inliner.inline_local_functions(graph).SerializeToString())
    for group in (1, 2, 5):
        images = np.random.default_rng(group).standard_normal((group, 3, 32, 32)).astype(np.float32)
        with torch.no_grad():
            expected = tiny_network(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=2e-5)
