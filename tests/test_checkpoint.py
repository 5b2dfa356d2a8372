"""Checkpoints: our format describes itself, the authors' loads as is, and anything else is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gconet.runtime.command_line import run
from gconet.runtime.errors import CheckpointError
from gconet.train import convert
from gconet.train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_vgg16,
    random_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from gconet.train.model import GCoNet, initialise

State = dict[str, Tensor]


def authors_names() -> list[str]:
    """The authors' parameter names, in the order of our state dict."""
    layers = [
        f"backbone.conv{block}.conv{block}_{index}"
        for block, count in enumerate((2, 2, 3, 3, 3), start=1)
        for index in range(1, count + 1)
    ]
    layers += [f"co_x5.all_attention.{name}" for name in ("query_transform", "key_transform", "conv6")]
    layers += ["toplayer.0", "toplayer.2"]
    for k in (4, 3, 2, 1):
        layers += [f"latlayer{k}.convlayer.0", f"latlayer{k}.convlayer.2"]
        layers += [f"enlayer{k}.enlayer.0", f"enlayer{k}.enlayer.2"]
        layers += [f"dslayer{k}.enlayer.0", f"dslayer{k}.enlayer.2", f"dslayer{k}.predlayer.0"]
    layers += ["pred_layer.enlayer.0", "pred_layer.predlayer.0", "classifier"]
    return [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


@pytest.fixture(scope="module")
def authors_state() -> State:
    """A full-size state dict under the authors' names, seeded."""
    return dict(zip(authors_names(), random_checkpoint(seed=4).state.values(), strict=True))


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[object], Path]:
    """Save anything as a `.pth`."""

    def save(content: object) -> Path:
        torch.save(content, tmp_path / "final_gconet.pth")
        return tmp_path / "final_gconet.pth"

    return save


def test_our_format_survives_a_round_trip_with_its_description(tmp_path: Path, tiny_checkpoint: Checkpoint) -> None:
    save_checkpoint(tiny_checkpoint, tmp_path / "deep" / "tiny.safetensors")
    read = read_checkpoint(tmp_path / "deep" / "tiny.safetensors")
    assert read.info == tiny_checkpoint.info
    assert read.state.keys() == tiny_checkpoint.state.keys()
    assert all(torch.equal(read.state[name], tensor) for name, tensor in tiny_checkpoint.state.items())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tiny.safetensors"]


@pytest.mark.parametrize("prefix", ["", "ginet.", "module.ginet."])
def test_the_authors_format_loads_with_or_without_prefix(
    authors_state: State, saved: Callable[[object], Path], prefix: str
) -> None:
    dead = {"backbone.classifier.0.bias": torch.zeros(3), "co_x5.fc_transform.weight": torch.zeros(2, 2)}
    path = saved({prefix + name: tensor for name, tensor in (authors_state | dead).items()})
    checkpoint = read_checkpoint(path)
    assert checkpoint.dropped == tuple(sorted(dead))
    assert checkpoint.info.architecture.classes == 291
    network = load_checkpoint(path)
    assert not network.training
    assert torch.equal(network.state_dict()["gam.output.weight"], authors_state["co_x5.all_attention.conv6.weight"])
    assert torch.equal(network.state_dict()["decoder.levels.1.side.4.bias"], authors_state["dslayer1.predlayer.0.bias"])


def test_a_training_checkpoint_with_optimizer_state_loads(
    authors_state: State, saved: Callable[[object], Path]
) -> None:
    assert read_checkpoint(saved({"state_dict": authors_state, "epoch": 50})).state


def test_every_wrong_key_is_listed_in_one_line(authors_state: State, saved: Callable[[object], Path]) -> None:
    state = dict(authors_state)
    del state["toplayer.0.weight"], state["classifier.bias"]
    state["enlayer3.enlayer.2.bias"] = torch.zeros(63)
    state["brand_new.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved(state))
    message = str(caught.value)
    for part in (
        "missing toplayer.0.weight",
        "missing classifier.bias",
        "enlayer3.enlayer.2.bias is (63,), wants (64,)",
        "unexpected brand_new.weight",
    ):
        assert part in message
    assert "\n" not in message


class Malicious:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, saved: Callable[[object], Path]) -> None:
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint of plain tensors"):
        load_checkpoint(saved({"weight": Malicious(tmp_path / "owned")}))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.pth", b"not a checkpoint"),
        ("empty.pth", b""),
        ("zip.pth", b"PK\x03\x04 broken"),
        ("text.safetensors", b"not a checkpoint"),
        ("empty.safetensors", b""),
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name) as caught:
        load_checkpoint(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_other_state_dicts_and_headerless_safetensors_are_told_apart(
    tmp_path: Path, saved: Callable[[object], Path]
) -> None:
    with pytest.raises(CheckpointError, match="none of its 1 keys is GCoNet's"):
        load_checkpoint(saved({"fc.weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="not a state dict"):
        load_checkpoint(saved([1, 2]))
    save_file({"fc.weight": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="gconet convert"):
        load_checkpoint(tmp_path / "bare.safetensors")
    save_file({"fc.weight": torch.zeros(1)}, tmp_path / "new.safetensors", metadata={"gconet": '{"schema": 99}'})
    with pytest.raises(CheckpointError, match="schema 99"):
        load_checkpoint(tmp_path / "new.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "absent.pth")


def test_convert_writes_our_format_and_does_not_overwrite_unasked(
    tmp_path: Path, authors_state: State, saved: Callable[[object], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(authors_state | {"co_classifier.0.weight": torch.zeros(1)})
    destination = tmp_path / "ours.safetensors"
    arguments = [str(source), str(destination)]
    assert run(convert.main, arguments) == 0
    assert "co_classifier.0.weight" in capsys.readouterr().out
    original, converted = load_checkpoint(source).state_dict(), load_checkpoint(destination).state_dict()
    assert all(torch.equal(converted[name], tensor) for name, tensor in original.items())

    before = destination.read_bytes()
    assert run(convert.main, arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert destination.read_bytes() == before
    assert run(convert.main, [*arguments, "--overwrite", "--provenance", "a test"]) == 0
    assert read_checkpoint(destination).info.provenance == "a test"


def test_convert_makes_small_checkpoints_to_pass_on(tmp_path: Path, tiny_checkpoint: Checkpoint) -> None:
    source, destination = tmp_path / "trained.safetensors", tmp_path / "small.safetensors"
    save_checkpoint(tiny_checkpoint, source)
    assert run(convert.main, [str(source), str(destination), "--inference", "--half"]) == 0
    assert destination.stat().st_size < 0.55 * source.stat().st_size
    small = load_checkpoint(destination)
    assert (small.architecture.gam, small.architecture.gcm, small.architecture.acm) == (True, False, False)
    expected = tiny_checkpoint.state["gam.output.weight"].half().float()
    assert torch.equal(small.state_dict()["gam.output.weight"], expected)


def test_weights_too_large_for_half_are_not_written(
    tmp_path: Path, tiny_checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    large = {**tiny_checkpoint.state, "gam.output.bias": torch.full_like(tiny_checkpoint.state["gam.output.bias"], 1e5)}
    source, destination = tmp_path / "trained.safetensors", tmp_path / "small.safetensors"
    save_checkpoint(Checkpoint(large, tiny_checkpoint.info), source)
    assert run(convert.main, [str(source), str(destination), "--half"]) == 2
    assert "gam.output.bias reaches 1e+05, more than fp16 can hold: leave --half out" in capsys.readouterr().err
    assert not destination.exists()


def test_weights_that_share_memory_are_converted(
    tmp_path: Path, authors_state: State, saved: Callable[[object], Path]
) -> None:
    query, key = (f"co_x5.all_attention.{name}_transform.weight" for name in ("query", "key"))
    source, destination = saved(authors_state | {key: authors_state[query]}), tmp_path / "ours.safetensors"
    assert run(convert.main, [str(source), str(destination)]) == 0
    assert torch.equal(read_checkpoint(destination).state["gam.key.weight"], authors_state[query])


def test_vgg16_weights_initialise_the_encoder(tmp_path: Path, tiny_network: GCoNet) -> None:
    donor = initialise(GCoNet(tiny_network.architecture), seed=8)
    indices = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    layers = [module for module in donor.encoder.modules() if isinstance(module, torch.nn.Conv2d)]
    state = {}
    for index, layer in zip(indices, layers, strict=True):
        assert layer.bias is not None
        state |= {f"features.{index}.weight": layer.weight.half(), f"features.{index}.bias": layer.bias.half()}
    state["classifier.0.weight"] = torch.zeros(1)  # torchvision's file has it, the encoder does not want it
    torch.save(state, tmp_path / "vgg16.pth")
    model = GCoNet(tiny_network.architecture)
    load_vgg16(model, tmp_path / "vgg16.pth")
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, donor.encoder.state_dict()[name].half().float())

    del state["features.28.bias"]
    state["features.0.weight"] = torch.zeros(1, 3, 3, 3)
    torch.save(state, tmp_path / "vgg16.pth")
    with pytest.raises(CheckpointError, match=r"features\.0\.weight \(1, 3, 3, 3\) .*features\.28\.bias missing"):
        load_vgg16(model, tmp_path / "vgg16.pth")


def test_imagenet_weights_fit_the_encoder(shared: Path) -> None:
    model = GCoNet()
    load_vgg16(model, shared / "weights" / "vgg16_imagenet_unitmean_fp16.pth")
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert 0.1 < model.encoder(images)[-1].mean() < 10
