"""Features of frozen blocks: computed once a pair, the same losses, the same run wherever it is stopped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from shapes import make_data

from gconet.runtime.command_line import run
from gconet.runtime.errors import UsageError
from gconet.train import kept_features
from gconet.train.config import TrainingConfig
from gconet.train.failures import TrainingError
from gconet.train.groups import read_groups
from gconet.train.kept_features import KeptFeatures
from gconet.train.loop import PairLoss, freeze
from gconet.train.losses import LossWeights
from gconet.train.model import Architecture, Encoder, GCoNet, initialise
from gconet.train.pairs import PairDataset
from gconet.train.processes import Processes
from gconet.train.train_command import main, run_training

SMALL = Architecture(encoder_channels=(8, 12, 16, 24, 32), decoder_channels=12, classes=3)
STEPS = 8  # six of them coarse, two pairs of them


@pytest.fixture
def config(tmp_path: Path) -> TrainingConfig:
    """Three rounds over two pairs, then two steps with level 1."""
    return TrainingConfig(
        data=make_data(tmp_path / "data"), out=tmp_path / "run", architecture=SMALL, group_size=2, steps=STEPS,
        sizes=(32,), levels=(4, 3, 3, 1), reuse=3, learning_rate=1e-3, workers=0, features=tmp_path / "kept",
    )  # fmt: skip


def _kept(config: TrainingConfig) -> tuple[KeptFeatures, PairDataset, GCoNet]:
    model = initialise(GCoNet(SMALL), seed=0)
    freeze(model, config.trainable_encoder)
    dataset = PairDataset(read_groups(config.data), config, STEPS)
    return KeptFeatures(model, dataset, config, STEPS), dataset, model


def _files(config: TrainingConfig) -> list[Path]:
    assert config.features is not None
    return sorted(config.features.glob("*/*"))


def test_every_pair_serves_as_many_steps_as_were_asked_for(config: TrainingConfig) -> None:
    kept, dataset, _ = _kept(config)
    assert (kept.steps, kept.pairs) == (6, 2)
    truths = [kept[index].truth for index in range(6)]
    for first in (0, 2, 4):
        found = {number for truth in truths[first : first + 2] for number in (0, 1)
                 if torch.equal(truth, dataset[number].truth)}  # fmt: skip
        assert found == {0, 1}
    assert len(_files(config)) == 2


@pytest.mark.parametrize("trainable", [("conv5.conv5_3",), ("conv3", "conv5"), ()], ids=["conv5_3", "conv3", "none"])
@pytest.mark.parametrize("finest", [4, 3])
def test_kept_features_give_the_losses_of_the_photos(
    config: TrainingConfig, trainable: tuple[str, ...], finest: int
) -> None:
    kept, dataset, model = _kept(dataclasses.replace(config, trainable_encoder=trainable))
    pair_loss = PairLoss(model, LossWeights(pixel=1.0, crossed=0.5))
    of_features = pair_loss(*kept[1], finest)
    of_photos = pair_loss(*dataset[1], finest)
    torch.testing.assert_close(torch.stack(list(of_features)), torch.stack(list(of_photos)), rtol=2e-3, atol=1e-3)
    of_features.total.backward()
    learning = {name.split(".")[1] for name, p in model.encoder.named_parameters() if p.grad is not None}
    assert learning == ({"conv5_3"} if trainable == ("conv5.conv5_3",) else _layers(model, trainable))


def _layers(model: GCoNet, prefixes: tuple[str, ...]) -> set[str]:
    return {name.split(".")[1] for name, _ in model.encoder.named_parameters() if name.startswith(prefixes)}


def test_a_second_run_and_the_rest_of_a_stopped_one_compute_no_features_again(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    computed: list[int] = []
    original = Encoder.first

    def count(self: Encoder, images: torch.Tensor, blocks: int) -> list[torch.Tensor]:
        if blocks > 1:  # less is a step from photos
            computed.append(blocks)
        return original(self, images, blocks)

    monkeypatch.setattr(Encoder, "first", count)
    assert run_training(config) == 0
    assert computed == [4, 4]
    assert "2 are computed on the way" in capsys.readouterr().out
    stopped = dataclasses.replace(config, out=tmp_path / "stopped", architecture=dataclasses.replace(SMALL, gcm=False))
    answers = iter([False] * 4 + [True])
    with monkeypatch.context() as patch:
        patch.setattr(Processes, "any", lambda *_: next(answers))
        assert run_training(stopped) == 130
    assert run_training(stopped) == 0
    assert run_training(dataclasses.replace(stopped, out=tmp_path / "whole")) == 0
    assert computed == [4, 4]
    assert "0 are computed on the way" in capsys.readouterr().out
    first, second = (
        [json.loads(line)["loss/total"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("stopped", "whole")
    )
    assert len(first) == STEPS
    assert first == second


def test_other_photos_sizes_and_frozen_weights_are_kept_apart(config: TrainingConfig) -> None:
    folders = {_kept(config)[0].folder}
    for change in ({"seed": 1}, {"sizes": (48,)}, {"balance": 0.5}, {"arithmetic": "bf16"}):
        folders.add(_kept(dataclasses.replace(config, **change))[0].folder)
    _, dataset, model = _kept(config)
    with torch.no_grad():
        model.encoder.conv1.conv1_1.bias += 1
    folders.add(KeptFeatures(model, dataset, config, STEPS).folder)
    assert len(folders) == 6
    with torch.no_grad():
        model.encoder.conv1.conv1_1.bias -= 1
        model.encoder.conv5.conv5_3.bias += 1  # it learns
    assert KeptFeatures(model, dataset, config, STEPS).folder in folders


@pytest.mark.parametrize("changed", ["images/toys/disc/0.jpg", "gts/toys/disc/0.png"])
def test_files_that_have_changed_are_kept_apart(config: TrainingConfig, changed: str) -> None:
    before = _kept(config)[0].folder
    (config.data / changed).write_bytes((config.data / changed.replace("disc/0", "square/1")).read_bytes())
    assert _kept(config)[0].folder != before


def test_a_damaged_file_is_made_again(config: TrainingConfig) -> None:
    kept, _, _ = _kept(config)
    before = kept[0]
    (path,) = _files(config)
    path.write_bytes(path.read_bytes()[:-100])
    torch.testing.assert_close(kept[0].features[-1], before.features[-1], rtol=0, atol=0)


def test_a_disk_without_room_is_told_before_the_first_step(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = kept_features.shutil.disk_usage(".")
    monkeypatch.setattr(kept_features.shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(UsageError, match=r"features of 2 pairs come to .* GB.*--features, or raise --reuse"):
        run_training(config)
    assert not _files(config)


def test_features_that_half_precision_cannot_hold_are_an_error(config: TrainingConfig) -> None:
    kept, _, model = _kept(config)
    with torch.no_grad():
        model.encoder.conv4.conv4_3.bias += 1e6
    with pytest.raises(TrainingError, match=r"pass 65504.*--informed-start"):
        kept[0]
    assert not _files(config)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--levels", "2", "1"], "--reuse serves steps that train levels 4 or 3 only"),
        (["--levels", "3", "1", "--sizes", "32", "64"], "--reuse 2 keeps features of one input size"),
        (["--levels", "3", "1", "--trainable-encoder", "conv"], "leave conv1 out of --trainable-encoder"),
        (["--reuse", "1", "--features", "kept"], "--features kept is where --reuse keeps features: add it"),
        (["--levels", "3", "1", "--steps", "2", "--features", __file__], "--features"),
    ],
)
def test_what_cannot_be_kept_is_a_usage_error(
    config: TrainingConfig, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--data", str(config.data), "--out", str(config.out), "--reuse", "2", *arguments]
    assert run(main, command) == 2
    assert named in capsys.readouterr().err
    assert not config.out.exists()
