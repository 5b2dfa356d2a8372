"""Training: learns, freezes, resumes to the bit, shares work, and names bad data before it starts."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import make_cutouts, make_data

from gconet.runtime.command_line import run
from gconet.train import train_command
from gconet.train.augment import augment
from gconet.train.checkpoint import load_checkpoint, read_checkpoint
from gconet.train.config import Augmentation, TrainingConfig
from gconet.train.groups import DataError, check_groups, hold_out, read_groups
from gconet.train.interruption import Interruption
from gconet.train.loop import learning_rate, rescale_consensus
from gconet.train.losses import soft_iou_loss
from gconet.train.model import Architecture, GCoNet, GroupAffinityModule, initialise
from gconet.train.observer import Observer
from gconet.train.pairs import PairDataset
from gconet.train.train_command import main, run_training

SMALL = Architecture(encoder_channels=(8, 12, 16, 24, 32), decoder_channels=12)
EVERYTHING = ("conv",)  # every encoder layer learns


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups of four."""
    return make_data(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def config(data: Path, tmp_path: Path) -> TrainingConfig:
    """A run of six steps on a small network."""
    return TrainingConfig(
        data=data, out=tmp_path / "run", architecture=SMALL, group_size=2, steps=6, sizes=(32, 48),
        trainable_encoder=EVERYTHING, encoder_rate=1.0, learning_rate=1e-3, workers=0, validate_every=3,
        picture_every=3, save_every=100, hold_out=("toys/triangle",),
        cutouts=make_cutouts(tmp_path / "cutouts"),
        augmentation=Augmentation(rotation=10, scale=(0.9, 1.1), colour=0.1, synthetic=0.3, distractor=0.3),
    )  # fmt: skip


def losses(out: Path) -> list[float]:
    """Total loss of every step."""
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [record["loss/total"] for record in records if "loss/total" in record]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The newest checkpoint."""
    return read_checkpoint(out / "last.safetensors").state


def test_a_run_leaves_checkpoints_a_log_and_pictures(config: TrainingConfig) -> None:
    assert run_training(config) == 0
    assert len(losses(config.out)) == 6
    assert load_checkpoint(config.out / "best.safetensors").architecture.classes == 2 + 2
    info = read_checkpoint(config.out / "last.safetensors").info
    assert info.preprocessing.size == 48
    assert "6 steps" in info.provenance
    with Image.open(config.out / "maps-000006.png") as sheet:
        assert sheet.size == (4 * 48, 3 * 48)
    assert list((config.out / "tensorboard").glob("events.*"))


def test_a_stopped_run_goes_on_to_the_bit(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_training(config) == 0
    stopped = dataclasses.replace(config, out=tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(train_command, "Observer", _stopping_after(2, patch))
        assert run_training(stopped) == 130
    assert len(losses(stopped.out)) == 2
    assert run_training(stopped) == 0
    assert losses(stopped.out) == losses(config.out)
    first, second = weights(config.out), weights(stopped.out)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert run_training(stopped) == 0  # complete: nothing to do
    assert len(losses(stopped.out)) == 6


def _stopping_after(last: int, patch: pytest.MonkeyPatch) -> type[Observer]:
    """An observer that presses Ctrl-C after a step, as a signal would."""
    requests: list[Interruption] = []
    original = Interruption.__enter__

    def remember(self: Interruption) -> Interruption:
        requests.append(self)
        return original(self)

    patch.setattr(Interruption, "__enter__", remember)

    class Stopping(Observer):
        def step(self, step: int, losses: list[float], rate: float) -> None:  # type: ignore[override]
            super().step(step, losses, rate)
            if step == last:
                os.kill(os.getpid(), 2)
                assert requests[-1].requested

    return Stopping


def test_a_run_with_other_settings_does_not_go_on(config: TrainingConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_training(config) == 0
    arguments = ["--data", str(config.data), "--out", str(config.out), "--steps", "7", "--group-size", "2"]
    assert run(main, arguments) == 2
    assert "other settings" in capsys.readouterr().err


def test_only_what_is_to_learn_changes(config: TrainingConfig) -> None:
    config = dataclasses.replace(config, trainable_encoder=("conv5.conv5_3",), sizes=(32,), steps=2)
    assert run_training(config) == 0
    classes = read_checkpoint(config.out / "last.safetensors").info.architecture.classes
    before = initialise(GCoNet(dataclasses.replace(SMALL, classes=classes)), config.seed).state_dict()
    changed = {name for name, tensor in weights(config.out).items() if not torch.equal(tensor, before[name])}
    encoder = {name for name in before if name.startswith("encoder.")}
    assert changed & encoder == {"encoder.conv5.conv5_3.weight", "encoder.conv5.conv5_3.bias"}
    # The output of an affinity does not change with its query-independent part, so these two hardly move.
    assert before.keys() - encoder - changed <= {"gam.query.bias", "gam.key.bias"}


def test_one_pair_of_groups_can_be_learned_by_heart(data: Path) -> None:
    """Soft IoU loss under 0.1 a photo, with all three losses."""
    torch.manual_seed(0)
    config = TrainingConfig(
        data, data, group_size=4, sizes=(64,), augmentation=Augmentation(flip=False, quarter_turns=False)
    )
    groups = read_groups(data)[:2]
    batch = PairDataset(groups, config, 1)[0]
    model = initialise(GCoNet(dataclasses.replace(SMALL, classes=2)), seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    from gconet.train.losses import LossWeights, gconet_losses

    loss = 1.0
    for _ in range(300):
        outputs = model.training_outputs(batch.images)
        loss = soft_iou_loss(outputs.side_maps[-1], batch.truth, "mean").item()
        if loss < 0.1:
            break
        optimizer.zero_grad()
        gconet_losses(outputs, batch.truth, batch.labels, LossWeights()).total.backward()
        optimizer.step()
    assert loss < 0.1


def test_two_processes_learn_what_one_does(data: Path, tmp_path: Path) -> None:
    """DistributedDataParallel over gloo: each process takes one of the two pairs of a step."""
    common = ["--data", str(data), "--steps", "3", "--group-size", "2", "--sizes", "32", "--pairs-per-step", "2"]
    common += ["--workers", "0", "--no-acm"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    module = ["-m", "gconet.train.train_command", *common, "--out"]
    single = [sys.executable, *module, str(tmp_path / "one")]
    double = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command in (single, [*double, *module, str(tmp_path / "two")]):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=2e-4)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-3, atol=4e-4)


def test_pairs_are_the_same_whenever_they_are_made(config: TrainingConfig) -> None:
    groups = read_groups(config.data)
    first, second = (PairDataset(groups, config, 6) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[4], second[4], strict=True))
    other = PairDataset(groups, dataclasses.replace(config, seed=1), 6)
    assert not torch.equal(first[4].images, other[4].images)
    assert first[0].images.shape == (4, 3, 32, 32)
    assert first[5].images.shape == (4, 3, 48, 48)


def test_photo_and_mask_stay_together(rng: np.random.Generator) -> None:
    """A photo that is its own mask, put through every augmentation, still is."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (20, 12, 50, 40))
    options = Augmentation(rotation=25, scale=(0.8, 1.3))
    for _ in range(20):
        photo, turned = augment(mask.convert("RGB"), mask, options, rng)
        inside = np.asarray(turned) == 255
        assert inside.any()
        assert (np.asarray(photo)[inside] == 255).all()


@pytest.mark.parametrize(("share", "labels"), [(0.0, {0, 1, 2}), (1.0, {3, 4})])
def test_synthetic_groups_are_labelled_by_their_cutout(config: TrainingConfig, share: float, labels: set[int]) -> None:
    config = dataclasses.replace(config, augmentation=Augmentation(synthetic=share))
    dataset = PairDataset(read_groups(config.data), config, 20)
    batches = [dataset[index] for index in range(20)]
    assert set(torch.cat([batch.labels for batch in batches]).tolist()) == labels
    assert all(batch.truth.flatten(1).amax() > 0.9 for batch in batches)


def test_small_groups_show_all_photos_before_repeating_any(config: TrainingConfig) -> None:
    config = dataclasses.replace(config, group_size=6, augmentation=Augmentation(flip=False, quarter_turns=False))
    images = PairDataset(read_groups(config.data), config, 6)[0].images[:6]
    assert len({image.numpy().tobytes() for image in images}) == 4


@torch.inference_mode()
def test_consensus_survives_a_change_of_input_size() -> None:
    """Features repeated over twice the height and width are the same evidence four times."""
    model = initialise(GCoNet(SMALL), seed=0)
    assert isinstance(model.gam, GroupAffinityModule)
    features = torch.randn(2, 32, 3, 3, generator=torch.Generator().manual_seed(0))
    before = model.gam(features).consensus
    rescale_consensus(model, 48, 96)
    torch.testing.assert_close(model.gam(features.repeat(1, 1, 2, 2)).consensus, before, rtol=1e-4, atol=1e-4)


def test_schedule_and_growth() -> None:
    config = TrainingConfig(Path(), Path(), schedule="cosine", sizes=(112, 160, 224))
    assert [config.size_at(step, 9) for step in (0, 2, 3, 5, 6, 8)] == [112, 112, 160, 160, 224, 224]
    assert learning_rate(config, 0, 10) == pytest.approx(1e-4)
    assert learning_rate(config, 5, 10) == pytest.approx(5e-5)
    assert learning_rate(TrainingConfig(Path(), Path()), 9, 10) == 1e-4


def _remove_mask(root: Path) -> str:
    (root / "gts/toys/disc/1.png").unlink()
    return "1.jpg has no mask"


def _shrink_mask(root: Path) -> str:
    Image.new("L", (5, 5)).save(root / "gts/toys/disc/1.png")
    return "1.png is 5×5, its photo 96×80"


def _break_photo(root: Path) -> str:
    (root / "images/toys/disc/1.jpg").write_text("not a photo")
    return "1.jpg is not a photo"


def _break_mask(root: Path) -> str:
    (root / "gts/toys/disc/1.png").write_text("not a mask")
    return "1.png cannot be read"


def _empty_group(root: Path) -> str:
    (root / "images/toys/void").mkdir()
    return "void is empty"


def _small_group(root: Path) -> str:
    (root / "images/toys/disc/1.jpg").unlink()
    return "toys/disc has 3 photos, 4 are asked for"


def _no_masks_at_all(root: Path) -> str:
    (root / "gts").rename(root / "masks")
    return "has no folder gts/"


@pytest.mark.parametrize(
    "spoil", [_remove_mask, _shrink_mask, _break_photo, _break_mask, _empty_group, _small_group, _no_masks_at_all]
)
def test_bad_data_is_named_before_training_starts(
    spoil: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_data(tmp_path / "data")
    expected = spoil(root)
    arguments = ["--data", str(root), "--out", str(tmp_path / "run"), "--group-size", "4"]
    assert run(main, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert not (tmp_path / "run").exists()


def test_every_problem_is_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_data(tmp_path / "data")
    expected = [_break_photo(root), _small_group(make_data(tmp_path / "other"))]
    (root / "images/toys/square/0.jpg").unlink()
    assert run(main, ["--data", str(root), "--out", str(tmp_path / "run"), "--group-size", "4"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert any(expected[0] in line for line in lines)


def test_held_out_photos_leave_the_training_groups_by_content(tmp_path: Path) -> None:
    root = make_data(tmp_path)
    copy = root / "images/toys/square/copy.jpg"
    copy.write_bytes((root / "images/toys/disc/0.jpg").read_bytes())
    (root / "gts/toys/square/copy.png").write_bytes((root / "gts/toys/square/0.png").read_bytes())
    training, held = hold_out(read_groups(root), ["toys/disc"])
    assert [group.name for group in held] == ["toys/disc"]
    assert copy not in [sample.photo for group in training for sample in group.samples]
    assert [len(group.samples) for group in training] == [4, 4]
    with pytest.raises(DataError, match="no group toys/star"):
        hold_out(read_groups(root), ["toys/star"])
    with pytest.raises(DataError, match="at least two"):
        check_groups(training[:1], 2)
