"""Training: learns, freezes, resumes to the bit, shares work, and names bad data before it starts."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import make_cutouts, make_data

from gconet.runtime.errors import CheckpointError
from gconet.train import train_command
from gconet.train.checkpoint import CheckpointInfo, load_checkpoint, read_checkpoint
from gconet.train.config import Augmentation, TrainingConfig
from gconet.train.groups import LabelledGroup, hold_out, read_groups
from gconet.train.interruption import Interruption
from gconet.train.loop import learning_rate, make_optimizer, rescale_consensus, train
from gconet.train.losses import LossWeights, gconet_losses, soft_iou_loss
from gconet.train.model import Architecture, GCoNet, GroupAffinityModule, initialise
from gconet.train.observer import Observer
from gconet.train.pairs import PairDataset
from gconet.train.processes import Processes
from gconet.train.train_command import run_training
from gconet.train.training_state import TrainingState

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


@pytest.mark.parametrize("ours", [False, True], ids=["paper", "all options"])
def test_a_stopped_run_goes_on_to_the_bit(
    config: TrainingConfig, ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ours:
        config = dataclasses.replace(config, informed_start=True, average=3, levels=(3, 3, 1), gam_rate=0.1,
                                     weights=LossWeights(crossed=0.5, pixel=1.0))  # fmt: skip
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
    config = dataclasses.replace(config, steps=1, sizes=(32,))
    assert run_training(config) == 0
    moved = dataclasses.replace(config, workers=1, save_every=7)
    assert run_training(moved) == 0  # complete: these may change
    with pytest.raises(CheckpointError, match=re.escape(named)):
        run_training(dataclasses.replace(config, **change))


@pytest.mark.parametrize("part", ["model", "optimizer", "step", None])
def test_a_damaged_state_is_one_line(config: TrainingConfig, part: str | None) -> None:
    config = dataclasses.replace(config, steps=1, sizes=(32,))
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
    loss = 1.0
    for _ in range(300):
        outputs = model.training_outputs(batch.images)
        loss = soft_iou_loss(outputs.sides[-1].maps, batch.truth, "mean").item()
        if loss < 0.1:
            break
        optimizer.zero_grad()
        gconet_losses(outputs, batch.truth, batch.labels, LossWeights()).total.backward()
        optimizer.step()
    assert loss < 0.1


def test_two_processes_learn_what_one_does(data: Path, tmp_path: Path) -> None:
    """DistributedDataParallel over gloo: each process takes one of the two pairs of a step."""
    arguments = [*_two_pairs(data), "--learning-rate", "1e-3", "--levels", "3", "1", "1"]
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

def stopping(config, step, steps, *first):
    if step == 1 and os.environ["RANK"] == "1" and not first:  # once a step
        os.kill(os.getpid(), signal.SIGINT)
    return original(config, step, steps, *first)

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


def test_finer_levels_wait_for_their_part_of_the_run(config: TrainingConfig) -> None:
    config = dataclasses.replace(config, levels=(3, 1), steps=2, sizes=(32,), validate_every=1)
    model = initialise(GCoNet(dataclasses.replace(SMALL, classes=4)), config.seed)
    waiting = {name: p.clone() for name, p in model.named_parameters() if name.startswith("decoder.levels.")}
    state = _state(model, config)
    for step, learned in ((1, {"4", "3"}), (2, {"4", "3", "2", "1"})):
        train(model, *_groups(config), step, state, None, dataclasses.replace(config, steps=2), Interruption())
        changed = {name.split(".")[2] for name, p in model.named_parameters()
                   if name in waiting and not torch.equal(p, waiting[name])}  # fmt: skip
        assert changed == learned


def test_checkpoints_hold_the_running_mean(config: TrainingConfig) -> None:
    model = GCoNet(SMALL)
    state = _state(model, config)
    bias = model.decoder.top[0].bias
    for value in (1.0, 2.0, 6.0, 6.0):
        torch.nn.init.constant_(bias, value)
        state.step += 1
        state.update_average(3)
    state.save()
    exported = weights(config.out)["decoder.top.0.bias"]
    torch.testing.assert_close(exported, torch.full_like(exported, (1 + 2 + 6) / 3 * 2 / 3 + 6 / 3))


def _state(model: GCoNet, config: TrainingConfig) -> TrainingState:
    info = CheckpointInfo(model.architecture)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainingState(
        config.out, model, make_optimizer(model, config, config.steps), scaler, info, "{}", config.sizes[-1]
    )


def _groups(config: TrainingConfig) -> tuple[list[LabelledGroup], list[LabelledGroup]]:
    return hold_out(read_groups(config.data), config.hold_out)


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
    coarse_first = dataclasses.replace(config, levels=(3, 1))
    assert [coarse_first.level_at(step, 9) for step in (0, 4, 5, 8)] == [3, 3, 1, 1]
    assert learning_rate(config, 0, 10) == pytest.approx(1e-4)
    assert learning_rate(config, 5, 10) == pytest.approx(5e-5)
    assert learning_rate(TrainingConfig(Path(), Path()), 9, 10) == 1e-4
    assert [coarse_first.joins_at(level, 9) for level in (4, 3, 2, 1)] == [0, 0, 5, 5]
    assert [learning_rate(config, step, 10, first=6) for step in (5, 6, 8)] == pytest.approx([0, 1e-4, 5e-5])
    warming = TrainingConfig(Path(), Path(), warm_up=3)
    assert [learning_rate(warming, step, 10) for step in (0, 1, 3, 9)] == pytest.approx([2.5e-5, 5e-5, 1e-4, 1e-4])
    assert [learning_rate(warming, step, 10, first=2) for step in (1, 2, 5)] == pytest.approx([0, 2.5e-5, 1e-4])


def test_training_needs_nothing_of_bench_but_its_metrics() -> None:
    files = (Path(__file__).parents[1] / "train").glob("*.py")
    assert set(re.findall(r"gconet\.bench\S*", "".join(file.read_text() for file in files))) == {"gconet.bench.metrics"}
