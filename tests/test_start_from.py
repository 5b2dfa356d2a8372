"""A training run that starts with the weights of another."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from shapes import make_data

from gconet.runtime.command_line import Parser
from gconet.runtime.errors import CheckpointError, UsageError
from gconet.train.arguments import add_run_arguments, add_training_arguments, training_config
from gconet.train.checkpoint import load_start, random_checkpoint, read_checkpoint, save_checkpoint
from gconet.train.config import TrainingConfig
from gconet.train.model import Architecture, GCoNet, initialise
from gconet.train.train_command import run_training

SMALL = Architecture(encoder_channels=(8, 12, 16, 24, 32), decoder_channels=12, classes=5)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A small checkpoint of another seed."""
    path = tmp_path / "start.safetensors"
    save_checkpoint(random_checkpoint(seed=1, architecture=SMALL), path)
    return path


def test_all_weights_are_those_of_the_checkpoint(start: Path) -> None:
    model = initialise(GCoNet(SMALL), seed=2)
    load_start(model, start)
    expected = random_checkpoint(seed=1, architecture=SMALL).state
    assert all(torch.equal(weight, expected[name]) for name, weight in model.state_dict().items())


def test_a_head_for_other_classes_starts_fresh(start: Path) -> None:
    model = initialise(GCoNet(dataclasses.replace(SMALL, classes=9)), seed=2)
    fresh = {name: weight.clone() for name, weight in model.state_dict().items()}
    load_start(model, start)
    expected = random_checkpoint(seed=1, architecture=SMALL).state
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, fresh[name])}
    assert torch.equal(model.state_dict()["acm.weight"], fresh["acm.weight"])
    assert torch.equal(model.encoder.conv1.conv1_1.weight, expected["encoder.conv1.conv1_1.weight"])
    assert not any(name.startswith("acm.") for name in changed)


def test_a_gam_cannot_come_from_a_network_without(start: Path) -> None:
    model = GCoNet(dataclasses.replace(SMALL, gam=False))
    with pytest.raises(CheckpointError, match="trained with a GAM: leave out --no-gam"):
        load_start(model, start)


def test_levels_that_a_checkpoint_brings_stay_as_they_are(start: Path, tmp_path: Path) -> None:
    """Only a new level passes on what is above it."""
    config = TrainingConfig(
        data=make_data(tmp_path / "data"), out=tmp_path / "run", start_from=start, architecture=SMALL, group_size=2,
        steps=2, sizes=(32,), levels=(3, 1), learning_rate=1e-9, workers=0,
    )  # fmt: skip
    assert run_training(config) == 0
    before, after = (read_checkpoint(path).state for path in (start, config.out / "last.safetensors"))
    for name, weight in after.items():
        if name.startswith("decoder."):
            torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-6)


def test_widths_must_be_the_same(start: Path) -> None:
    """Or all that does not fit would go on as it was drawn, without a word."""
    wider = dataclasses.replace(SMALL, encoder_channels=(8, 12, 16, 24, 40))
    with pytest.raises(CheckpointError, match=r"has \(8, 12, 16, 24, 32, 12\) channels, this network"):
        load_start(GCoNet(wider), start)


def test_a_checkpoint_of_another_input_size_keeps_its_consensus(tmp_path: Path) -> None:
    """Its weights are of 224 pixels; at 48 the GAM's output projection makes up for having fewer pixels to average."""
    begun = random_checkpoint(seed=1, architecture=dataclasses.replace(SMALL, classes=3))
    save_checkpoint(begun, tmp_path / "start.safetensors")
    config = TrainingConfig(
        make_data(tmp_path / "data"), tmp_path / "run", architecture=SMALL, start_from=tmp_path / "start.safetensors",
        group_size=2, steps=1, sizes=(48,), workers=0, learning_rate=1e-9,
    )  # fmt: skip
    assert run_training(config) == 0
    trained = read_checkpoint(config.out / "last.safetensors")
    assert trained.info.preprocessing.size == 48
    expected = begun.state["gam.output.weight"] * (48 / 224) ** 2
    torch.testing.assert_close(trained.state["gam.output.weight"], expected)


@pytest.mark.parametrize("other", [["--vgg", "vgg.pth"], ["--informed-start"]], ids=["vgg", "informed"])
def test_there_is_one_start(start: Path, tmp_path: Path, other: list[str]) -> None:
    parser = Parser("gconet train", "", "")
    add_run_arguments(parser)
    add_training_arguments(parser)
    options = parser.parse_args(["--data", "d", "--out", str(tmp_path), "--start-from", str(start), *other])
    with pytest.raises(UsageError, match="leave --vgg and --informed-start out"):
        training_config(options)
