"""Peers: every one runs the reference network, is left out with its reason where it cannot, and has a memory figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from parity_bundles import BundleWithFault, random_images

from gconet.bench import peers
from gconet.bench.contenders import bundle_contender, eager_contender, peer_contenders
from gconet.bench.peak_memory import measure_peak_memory
from gconet.bench.peers import EAGER, PEERS, Infer, Peer, PeerRequest, choose_peers, why_not_here
from gconet.bench.tolerances import tolerance
from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.errors import CheckpointError, TargetError, UsageError
from gconet.train.checkpoint import Checkpoint
from gconet.train.model import GCoNet

COMPILED = ["torch-compile", "torch-compile-fp16"]
QUICK = [name for name in PEERS if name not in COMPILED]
OTHERS = [name for name in PEERS if name != EAGER]


@pytest.fixture(scope="module")
def make_bundle(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> BundleWithFault:
    return BundleWithFault(tiny_checkpoint, tmp_path_factory.mktemp("peers"))


@pytest.fixture(scope="module")
def bundle(make_bundle: BundleWithFault) -> Bundle:
    return open_bundle(make_bundle("sound", "onnxruntime", "fp32"))


@pytest.fixture(scope="module")
def request_(make_bundle: BundleWithFault, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> PeerRequest:
    return PeerRequest(bundle.manifest, make_bundle.checkpoint_file, 1, tmp_path_factory.mktemp("graphs"))


def load_or_skip(name: str, request: PeerRequest) -> Infer:
    if reason := why_not_here(PEERS[name], request):
        pytest.skip(reason)
    return PEERS[name].load(request)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in COMPILED)])
def test_every_peer_gives_the_reference_networks_maps(name: str, request_: PeerRequest, tiny_network: GCoNet) -> None:
    infer = load_or_skip(name, request_)
    limits = tolerance(PEERS[name].target, PEERS[name].precision)
    # What compiles does so for each size, for half a minute.
    for group in (2,) if name in COMPILED else (1, 3, 1):
        images = random_images(group)
        with torch.inference_mode():
            wanted = tiny_network(torch.from_numpy(images)).numpy()
        maps = infer(images)
        assert maps.dtype == np.float32
        assert maps.shape == wanted.shape
        assert np.abs(maps - wanted).mean() <= limits.mean_abs


def test_the_plain_export_has_no_operator_of_ours_and_a_fixed_group(request_: PeerRequest) -> None:
    load_or_skip("onnxruntime", request_)(random_images(2))
    graph = onnx.load(request_.graphs / "reference-2.onnx")
    assert {opset.domain for opset in graph.opset_import} == {""}
    assert not graph.functions
    assert [dimension.dim_value for dimension in graph.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 64, 64]


def test_without_its_checkpoint_the_network_is_random_but_a_wrong_one_is_refused(
    request_: PeerRequest, make_bundle: BundleWithFault, tmp_path: Path
) -> None:
    unknown = dataclasses.replace(request_, checkpoint=None)
    images = random_images(1)
    assert not np.allclose(PEERS[EAGER].load(unknown)(images), PEERS[EAGER].load(request_)(images), atol=1e-3)
    stranger = tmp_path / "other.safetensors"
    stranger.write_bytes(make_bundle.checkpoint_file.read_bytes() + b"\0")
    with pytest.raises(CheckpointError):
        PEERS[EAGER].load(dataclasses.replace(request_, checkpoint=stranger))


def test_a_peer_that_cannot_run_is_left_out_with_its_reason(
    bundle: Bundle, request_: PeerRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: PeerRequest) -> Infer:
        raise RuntimeError("\nno compiler was found\nat line 5")

    def small(_: PeerRequest) -> Infer:
        def infer(images: object) -> object:
            if len(images) > 1:  # type: ignore[arg-type]
                raise MemoryError
            return images

        return infer  # type: ignore[return-value]

    monkeypatch.setattr(peers, "broken", broken, raising=False)
    monkeypatch.setattr(peers, "small", small, raising=False)
    monkeypatch.setattr(
        "gconet.bench.contenders.PEERS",
        {
            "torch-compile": Peer("torch.compile", "pytorch", "fp32", "gconet.bench.peers:broken"),
            "onnxruntime": Peer("plain ONNX Runtime", "onnxruntime", "fp32", "gconet.bench.peers:small"),
        },
    )
    inputs = {1: random_images(1), 2: random_images(2)}
    contenders, left_out = peer_contenders(["torch-compile", "onnxruntime"], bundle, request_, inputs)
    assert contenders == []
    assert left_out == {
        "torch.compile": "it does not run here: no compiler was found",
        "plain ONNX Runtime": "it does not run here: MemoryError",
    }


def test_bf16_needs_instructions_fp16_a_gpu_and_a_gpu_run_has_only_pytorch_as_peer(
    request_: PeerRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "describe_environment", lambda: {"cpu_flags": ["avx2"]})
    assert "no bf16 instructions" in str(why_not_here(PEERS["pytorch-bf16"], request_))
    assert why_not_here(PEERS["torch-compile"], request_) is None
    on_gpu = dataclasses.replace(request_, device="cuda")
    assert "run on a GPU" in str(why_not_here(PEERS["openvino-fp32"], on_gpu))
    assert why_not_here(PEERS["pytorch-bf16"], on_gpu) is None
    for name in ("pytorch-fp16", "torch-compile-fp16"):
        assert "half precision is for a GPU" in str(why_not_here(PEERS[name], request_))
        assert why_not_here(PEERS[name], on_gpu) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch reaches no GPU")
@pytest.mark.parametrize("name", ["pytorch-fp16", "torch-compile-fp16"])
def test_peers_in_half_precision_give_the_reference_networks_maps_on_a_gpu(
    name: str, request_: PeerRequest, tiny_network: GCoNet
) -> None:
    infer = PEERS[name].load(dataclasses.replace(request_, device="cuda"))
    for _ in range(4):  # plain, captured, launched
        images = random_images(2)
        with torch.inference_mode():
            wanted = tiny_network(torch.from_numpy(images)).numpy()
        assert np.abs(infer(images) - wanted).mean() <= tolerance("pytorch", "fp16").mean_abs


@pytest.mark.skipif(torch.cuda.is_available(), reason="this PyTorch reaches a GPU")
def test_pytorch_without_cuda_says_so_beside_bundles_on_a_gpu(request_: PeerRequest) -> None:
    with pytest.raises(TargetError, match="cannot reach"):
        PEERS[EAGER].load(dataclasses.replace(request_, device="cuda"))


def test_peers_are_chosen_by_name() -> None:
    assert choose_peers([]) == choose_peers(["none"]) == []
    assert choose_peers(["all"]) == OTHERS
    assert choose_peers(["openvino-fp32,pytorch-bf16", "onnxruntime"]) == [
        "pytorch-bf16", "onnxruntime", "openvino-fp32",
    ]  # fmt: skip
    for words in (["tensorflow"], ["none", "onnxruntime"], [EAGER]):
        with pytest.raises(UsageError):
            choose_peers(words)


def test_every_peer_has_a_tolerance_with_a_reason() -> None:
    assert all(tolerance(peer.target, peer.precision).reason for peer in PEERS.values())


@pytest.mark.parametrize("name", [EAGER, "onnxruntime"])
def test_peak_memory_of_a_peer_is_that_of_its_own_process(bundle: Bundle, request_: PeerRequest, name: str) -> None:
    make: Callable[[], object] = {
        EAGER: lambda: eager_contender(bundle, request_).process,
        "onnxruntime": lambda: peer_contenders([name], bundle, request_, {1: random_images(1)})[0][0].process,
    }[name]
    process = make()
    assert isinstance(process, tuple)
    peak = measure_peak_memory(process, 1)
    assert peak.device_memory_mb is None
    assert peak.peak_rss_mb is not None
    own = measure_peak_memory(bundle_contender(bundle, 1).process, 1).peak_rss_mb
    assert own is not None
    if name == EAGER:
        assert peak.peak_rss_mb > 1.5 * own  # torch
    else:
        assert peak.peak_rss_mb < 1.5 * own  # the graph was there, so torch was not loaded


def test_memory_that_cannot_be_measured_loses_nothing_else(tmp_path: Path) -> None:
    peak = measure_peak_memory(["--bundle", str(tmp_path / "absent.gconet")], 1)
    assert (peak.peak_rss_mb, peak.device_memory_mb) == (None, None)
