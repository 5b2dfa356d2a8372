"""Training: learns, freezes, resumes to the bit, shares work, and names bad data before it starts."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import make_cutouts, make_data

from gconet.runtime.command_line import run
from gconet.runtime.errors import CheckpointError, UsageError
from gconet.train import train_command
from gconet.train.augment import Picture, augment, resize_pair
from gconet.train.checkpoint import load_checkpoint, read_checkpoint
from gconet.train.config import Augmentation, TrainingConfig
from gconet.train.cutouts import Cutouts
from gconet.train.data_check import checked_groups
from gconet.train.groups import DataError, LabelledGroup, Sample, hold_out, leave_out_copies, read_groups
from gconet.train.interruption import Interruption
from gconet.train.loop import learning_rate, rescale_consensus
from gconet.train.losses import soft_iou_loss
from gconet.train.model import Architecture, GCoNet, GroupAffinityModule, initialise
from gconet.train.observer import Observer
from gconet.train.pairs import PairDataset
from gconet.train.processes import Processes
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


@pytest.mark.parametrize("done", [0, 2])
def test_a_stopped_run_is_saved_whenever_the_signal_came(
    config: TrainingConfig, done: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([*[False] * done, True])
    monkeypatch.setattr(Processes, "any", lambda *_: next(answers))
    assert run_training(config) == 130
    assert torch.load(config.out / "state.pt")["step"] == done
    assert f"saved at step {done}" in capsys.readouterr().err


def _stopping_after(last: int, patch: pytest.MonkeyPatch) -> type[Observer]:
    """An observer that asks to stop after a step, as the handler of Ctrl-C does.

    No signal is sent: this process has loaded every engine's native library, and what those do with signals is not ours
    to test. `test_a_stop_in_one_process_stops_all_after_the_same_step` sends one to a process that only trains.
    """
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
                requests[-1].requested = True

    return Stopping


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder_rate": 0.5}, "encoder_rate is 1.0 there, 0.5 here"),
        ({"architecture": dataclasses.replace(SMALL, gam=False)}, "architecture.gam is True there, False here"),
        ({"augmentation": Augmentation(rotation=20)}, "augmentation.rotation is 10 there, 20 here"),
        ({"hold_out": ()}, "groups.toys/triangle is absent there, 4 here"),
        ({"vgg": Path("vgg16.pth")}, "vgg is None there, vgg16.pth here"),
    ],
)
def test_a_run_with_other_settings_does_not_go_on(
    config: TrainingConfig, change: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_command, "load_vgg16", lambda *_: None)
    config = dataclasses.replace(config, steps=1)
    assert run_training(config) == 0
    moved = dataclasses.replace(config, workers=1, save_every=7)
    assert run_training(moved) == 0  # complete: these may change
    with pytest.raises(CheckpointError, match=re.escape(named)):
        run_training(dataclasses.replace(config, **change))


@pytest.mark.parametrize("part", ["model", "optimizer", "step", None])
def test_a_damaged_state_is_one_line(config: TrainingConfig, part: str | None) -> None:
    config = dataclasses.replace(config, steps=1)
    assert run_training(config) == 0
    path = config.out / "state.pt"
    if part is None:
        path.write_bytes(path.read_bytes()[:-2000])
    else:
        torch.save(torch.load(path) | {part: {"state": torch.ones(2)}}, path)
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged: remove it") as caught:
        run_training(config)
    assert "\n" not in str(caught.value)


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
    still = Augmentation(flip=False, rotation=0)
    config = TrainingConfig(data, data, group_size=4, sizes=(64,), augmentation=still)
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
    arguments = [*_two_pairs(data), "--learning-rate", "1e-3"]
    module = ["-m", "gconet.train.train_command", *arguments, "--out"]
    single, double = ([*command, *module] for command in ([sys.executable], TWO_PROCESSES))
    for command in ([*single, str(tmp_path / "one")], [*double, str(tmp_path / "two")]):
        result = _with_one_thread(command)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("3 steps done") == 1
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=2e-4)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    architecture = read_checkpoint(tmp_path / "one" / "last.safetensors").info.architecture
    before = initialise(GCoNet(architecture), seed=0).state_dict()
    moved = _distance(first, before)
    assert moved > 1
    assert _distance(second, first) < 0.01 * moved


def test_a_stop_in_one_process_stops_all_after_the_same_step(data: Path, tmp_path: Path) -> None:
    script = tmp_path / "stopping.py"
    script.write_text(STOPPING)
    out = tmp_path / "run"
    result = _with_one_thread([*TWO_PROCESSES, str(script), *_two_pairs(data), "--out", str(out)])
    assert result.returncode != 0
    assert result.stderr.count("stopped and saved at step 2") == 1
    assert torch.load(out / "state.pt")["step"] == len(losses(out)) == 2


TWO_PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STOPPING = """
import os, signal, sys
from gconet.train import loop
from gconet.train.train_command import main

original = loop.learning_rate

def stopping(config, step, steps):
    if step == 1 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGINT)
    return original(config, step, steps)

loop.learning_rate = stopping
sys.exit(main(sys.argv[1:]))
"""


def _two_pairs(data: Path) -> list[str]:
    arguments = ["--data", str(data), "--steps", "3", "--group-size", "2", "--sizes", "32", "--pairs-per-step", "2"]
    return [*arguments, "--workers", "0", "--no-acm"]


def _with_one_thread(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return sum(float((first[name] - second[name]).square().sum()) for name in first) ** 0.5


def test_pairs_are_the_same_whenever_they_are_made(config: TrainingConfig) -> None:
    groups = read_groups(config.data)
    first, second = (PairDataset(groups, config, 6) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[4], second[4], strict=True))
    other = PairDataset(groups, dataclasses.replace(config, seed=1), 6)
    assert not torch.equal(first[4].images, other[4].images)
    assert first[0].images.shape == (4, 3, 32, 32)
    assert first[5].images.shape == (4, 3, 48, 48)


@pytest.mark.parametrize("options", [Augmentation(), Augmentation(rotation=25, scale=(0.8, 1.3))])
def test_photo_and_mask_stay_together(options: Augmentation, rng: np.random.Generator) -> None:
    """A photo that is its own mask, put through every augmentation, still is; masks stay black and white."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (20, 12, 50, 40))
    for _ in range(20):
        photo, turned = (np.asarray(picture) for picture in augment(mask.convert("RGB"), mask, options, rng))
        assert set(np.unique(turned)) == {0, 255}
        # The nearest of four neighbours has at least a quarter of the weight.
        assert (photo[turned == 255] >= 63).all()
        assert (photo[turned == 0] <= 192).all()


def test_angles_are_uniform_up_to_the_largest(rng: np.random.Generator) -> None:
    """A bar from the centre to the right, seen from there."""
    mask = Image.new("L", (65, 65))
    mask.paste(255, (33, 32, 60, 33))
    angles = []
    for _ in range(200):
        _, turned = augment(mask.convert("RGB"), mask, Augmentation(flip=False), rng)
        y, x = np.argwhere(np.asarray(turned)).mean(axis=0) - 32
        angles.append(np.degrees(np.arctan2(y, x)))
    assert -91 < min(angles) < -70 < 70 < max(angles) < 91
    assert np.histogram(angles, bins=4, range=(-91, 91))[0].min() > 30


def test_masks_are_resized_by_nearest_neighbour() -> None:
    mask = Image.fromarray(np.indices((50, 70)).sum(axis=0).astype(np.uint8) % 2 * 255)
    _, resized = resize_pair(mask.convert("RGB"), mask, 32)
    assert set(np.unique(np.asarray(resized))) == {0, 255}


def test_each_epoch_every_group_leads_once(config: TrainingConfig) -> None:
    config = dataclasses.replace(config, augmentation=Augmentation(), epochs=4, steps=0)
    groups = read_groups(config.data)
    steps = config.steps_over(len(groups))
    assert steps == 4 * len(groups)
    assert dataclasses.replace(config, pairs_per_step=5).steps_over(len(groups)) == 3  # 12 pairs, five a step
    dataset = PairDataset(groups, config, steps)
    pairs = [dataset[index].labels[:: config.group_size].tolist() for index in range(steps)]
    epochs = [[first for first, _ in pairs[start : start + len(groups)]] for start in range(0, steps, len(groups))]
    assert all(sorted(epoch) == [0, 1, 2] for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    assert all(first != second for first, second in pairs)
    assert {second for _, second in pairs} == {0, 1, 2}


@pytest.mark.parametrize(("share", "labels"), [(0.0, {0, 1, 2}), (1.0, {3, 4})])
def test_synthetic_groups_are_labelled_by_their_cutout(config: TrainingConfig, share: float, labels: set[int]) -> None:
    config = dataclasses.replace(config, augmentation=Augmentation(synthetic=share))
    dataset = PairDataset(read_groups(config.data), config, 20)
    batches = [dataset[index] for index in range(20)]
    assert set(torch.cat([batch.labels for batch in batches]).tolist()) == labels
    assert all(batch.truth.flatten(1).amax() > 0.9 for batch in batches)
    assert all(batch.labels[0] != batch.labels[-1] for batch in batches)


def test_no_synthetic_group_has_its_object_as_a_distractor(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = Cutouts.read

    def remember(self: Cutouts, index: int) -> Picture:
        read.append(index)
        return original(self, index)

    monkeypatch.setattr(Cutouts, "read", remember)
    config = dataclasses.replace(config, augmentation=Augmentation(synthetic=1.0), group_size=3)
    groups = read_groups(config.data)
    dataset = PairDataset(groups, config, 20)
    others = 0
    for index in range(20):
        read.clear()
        shared = [int(label) - len(groups) for label in dataset[index].labels[::3]]
        assert [read.count(cutout) >= 3 for cutout in shared] == [True, True]
        others += len(read) - 6
        # With two cut-outs, what is not the group's own is the other's: between them they account for every one.
        assert sorted(set(read)) == sorted(shared)
    assert others


def test_small_groups_show_all_photos_before_repeating_any(config: TrainingConfig) -> None:
    config = dataclasses.replace(config, group_size=6, augmentation=Augmentation(flip=False, rotation=0))
    images = PairDataset(read_groups(config.data), config, 6)[0].images[:6]
    assert len({image.numpy().tobytes() for image in images}) == 4


def test_both_groups_of_a_pair_are_cut_to_the_smaller(tmp_path: Path) -> None:
    root = make_data(tmp_path)
    _small_group(root)
    config = TrainingConfig(root, tmp_path / "run", group_size=4, small_groups="cut", sizes=(32,))
    groups, _ = checked_groups(config)
    dataset = PairDataset(groups, config, 6)
    for batch in (dataset[index] for index in range(6)):
        smallest = min(len(groups[label].samples) for label in batch.labels)
        assert batch.labels.bincount().unique().tolist() in ([smallest], [0, smallest])
        assert len(batch.images) == len(batch.truth) == 2 * smallest


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
    return "toys/disc has 3 photos to train on, 4 are asked for"


def _break_cutout(root: Path) -> str:
    (make_cutouts(root / "cutouts") / "disc.png").write_text("not a cut-out")
    return "disc.png cannot be read"


def _single_cutout(root: Path) -> str:
    (make_cutouts(root / "cutouts") / "disc.png").unlink()
    return "1 cut-outs"


def _no_masks_at_all(root: Path) -> str:
    (root / "gts").rename(root / "masks")
    return "has no folder gts/"


@pytest.mark.parametrize(
    "spoil",
    [
        _remove_mask, _shrink_mask, _break_photo, _break_mask, _empty_group, _small_group, _no_masks_at_all,
        _break_cutout, _single_cutout,
    ],
)  # fmt: skip
def test_bad_data_is_named_before_training_starts(
    spoil: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_data(tmp_path / "data")
    expected = spoil(root)
    arguments = ["--data", str(root), "--out", str(tmp_path / "run"), "--group-size", "4"]
    if (root / "cutouts").is_dir():
        arguments += ["--cutouts", str(root / "cutouts")]
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
    config = TrainingConfig(root, tmp_path / "run", group_size=4, hold_out=("toys/disc",))
    training, held = checked_groups(config)
    assert [group.name for group in held] == ["toys/disc"]
    assert copy not in [sample.photo for group in training for sample in group.samples]
    assert [len(group.samples) for group in training] == [4, 4]
    with pytest.raises(DataError, match="no group toys/star"):
        hold_out(read_groups(root), ["toys/star"])
    with pytest.raises(DataError, match="at least two"):
        checked_groups(dataclasses.replace(config, hold_out=("toys/disc", "toys/square")))
    copy.unlink()
    with pytest.raises(DataError, match=r"copy\.jpg cannot be read"):
        leave_out_copies([LabelledGroup("copy", (Sample(copy, copy),))], held)


def test_held_out_groups_may_be_small_but_not_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_data(tmp_path / "data")
    _small_group(root)
    config = TrainingConfig(root, tmp_path / "run", group_size=4, hold_out=("toys/disc",))
    training, (held,) = checked_groups(config)
    assert (len(training), len(held.samples)) == (2, 3)
    (root / "images/toys/disc/0.jpg").write_text("not a photo")
    arguments = ["--data", str(root), "--out", str(tmp_path / "run"), "--group-size", "4", "--hold-out", "toys/disc"]
    assert run(main, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "0.jpg is not a photo" in line


@pytest.mark.parametrize(
    "argument",
    ["--sizes 100", "--sizes 32 16", "--seed -1", "--seed 18446744073709551616", "--scale 1.2 0.8", "--scale 0 1",
     "--scale nan 1", "--learning-rate 0", "--learning-rate inf", "--encoder-rate -1", "--encoder-rate nan",
     "--workers -1", "--synthetic 1.5", "--distractor -0.1", "--rotation 181", "--rotation nan", "--colour 1",
     "--device cuda:99", "--device meta", "--device tpu", "--small-groups drop"],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_one_line(
    argument: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path / "run"), "--group-size", "4", *argument.split()]
    assert _exit_code(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert argument.split()[0] in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_folder_that_cannot_be_made_is_one_line(
    place: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert _exit_code(["--data", str(data), "--out", str(tmp_path / place), "--group-size", "4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "file is a file" in line


def test_a_read_only_folder_is_one_line(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(UsageError, match="cannot be written"):
            run_training(config)
    config.out.write_text("came in between")
    with pytest.raises(UsageError, match="cannot be written"):
        Observer(config.out, 0, 1)


def _exit_code(arguments: list[str]) -> int:
    """Of the command, whether its parser or its `main` finds the error."""
    try:
        return run(main, arguments)
    except SystemExit as error:
        return int(error.code or 0)


def test_training_needs_nothing_of_bench_but_its_metrics() -> None:
    files = (Path(__file__).parents[1] / "train").glob("*.py")
    assert set(re.findall(r"gconet\.bench\S*", "".join(file.read_text() for file in files))) == {"gconet.bench.metrics"}
