"""What ends a training that had started well is one line, and nothing that was saved is lost by it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from shapes import make_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gconet.runtime.command_line import run
from gconet.runtime.errors import GconetError, PhotoError
from gconet.train import train_command
from gconet.train.checkpoint import read_checkpoint
from gconet.train.config import TrainingConfig
from gconet.train.failures import TrainingError, check_losses, explained
from gconet.train.model import Architecture
from gconet.train.observer import Observer
from gconet.train.processes import Processes
from gconet.train.train_command import main, run_training

SMALL = Architecture(encoder_channels=(8, 12, 16, 24, 32), decoder_channels=12)


@pytest.fixture
def config(tmp_path: Path) -> TrainingConfig:
    """Four steps on a small network, saved after the first."""
    return TrainingConfig(
        data=make_data(tmp_path / "data"), out=tmp_path / "run", architecture=SMALL, group_size=2, steps=4,
        sizes=(32,), workers=0, save_every=1,
    )  # fmt: skip


def test_a_loss_that_is_no_number_ends_the_run_and_saves_nothing(config: TrainingConfig) -> None:
    diverging = dataclasses.replace(config, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"no number any more at step 2.*lower --learning-rate"):
        run_training(diverging)
    assert torch.load(config.out / "state.pt")["step"] == 1
    (record,) = map(json.loads, (config.out / "log.jsonl").read_text().splitlines())
    assert record["step"] == 1


def test_fp16_may_overflow_in_single_steps() -> None:
    losses = [float("nan"), 1.0]
    check_losses(losses, 1, torch.amp.GradScaler("cpu"))
    after_many = torch.amp.GradScaler("cpu", init_scale=0.5)
    check_losses([1.0, 1.0], 1, after_many)
    with pytest.raises(TrainingError):
        check_losses(losses, 1, after_many)


def test_what_was_not_saved_is_dropped_from_the_logs(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run killed in step 3 goes on from step 2: each step is in the log once, and TensorBoard shows each."""
    answers: Iterator[bool] = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(Processes, "any", lambda *_: next(answers))
        assert run_training(config) == 130
    log = config.out / "log.jsonl"
    with log.open("a") as file:
        file.write('{"step": 3, "loss/total": 1.0}\n{"step": 4, "loss/to')
    assert run_training(config) == 0
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4]
    board = EventAccumulator(str(config.out / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("rate")] == [1, 2, 3, 4]


def test_a_log_stays_json_whatever_the_loss(tmp_path: Path) -> None:
    with Observer(tmp_path, 0, 1) as observer:
        observer.step(1, [float("nan"), float("inf"), 0.5, 0.25], 1e-4)
    (record,) = (json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "log.jsonl").open())
    assert (record["loss/total"], record["loss/saliency"], record["loss/collaborating"]) == (None, None, 0.5)


def test_pictures_are_complete_or_absent(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(_: Image.Image, place: Path, **__: object) -> None:
        Path(place).write_bytes(b"\x89PNG")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_training(dataclasses.replace(config, picture_every=1))
    assert not list(config.out.glob("*maps*"))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "out of memory on cuda: lower --group-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory on cuda"),
        (MemoryError(), "out of memory on cuda"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), "pass --workers 0"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "pass --workers 0"),
    ],
)
def test_what_the_machine_lacks_is_told(error: Exception, line: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=line), explained(tmp_path, "cuda"):
        raise error
    for ours in ("ours", "Caught RuntimeError in DataLoader worker process 0.\nours"):
        with pytest.raises(RuntimeError, match="ours"), explained(tmp_path, "cuda"):
            raise RuntimeError(ours)


@pytest.mark.parametrize(
    ("where", "error", "line"),
    [
        ("load", PermissionError(13, "Permission denied"), r"state\.pt cannot be read .*Permission denied"),
        ("load", OSError(5, "Input/output error"), r"state\.pt cannot be read"),
        ("load", MemoryError(), "out of memory on cpu"),
        ("load", RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory on cpu"),
        ("optim.Adam.load_state_dict", torch.OutOfMemoryError("CUDA out of memory"), "out of memory on cpu"),
    ],
)
def test_a_whole_state_that_cannot_be_loaded_is_not_called_damaged(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, line: str
) -> None:
    """Its reader would remove it."""
    assert run_training(config) == 0

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"torch.{where}", fail)
    with pytest.raises(GconetError, match=line):
        run_training(config)


def test_a_run_cut_off_between_its_last_two_files_is_not_complete(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that says "done" beside older weights would have these used for the answer."""
    written: list[str] = []
    replace = os.replace

    def cut_off(source: Path, place: Path) -> None:
        written.append(Path(place).name)
        if len([name for name in written if name in ("state.pt", "last.safetensors")]) == 2 * config.steps:
            raise KeyboardInterrupt
        replace(source, place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run_training(config)
    assert run_training(config) == 0
    state, weights = torch.load(config.out / "state.pt"), read_checkpoint(config.out / "last.safetensors").state
    assert state["step"] == config.steps
    assert all(torch.equal(weights[name], state["model"][name]) for name in weights)


def test_a_photo_that_vanished_is_named(config: TrainingConfig) -> None:
    groups, held_out = train_command.checked_groups(config)
    for group in groups:
        for sample in group.samples:
            sample.photo.unlink()
    with pytest.raises(PhotoError, match=r"^no photo at .*\.jpg$"):
        train_command.train_on(config, groups, held_out)


def test_a_photo_that_a_worker_missed_is_named_without_its_traceback(tmp_path: Path) -> None:
    told = "Caught PhotoError in DataLoader worker process 0.\nOriginal Traceback …\nPhotoError: no photo at a.jpg"
    with pytest.raises(PhotoError, match=r"^no photo at a\.jpg$"), explained(tmp_path, "cpu"):
        raise PhotoError(told)


def test_a_rank_without_a_rendezvous_is_one_line(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert run(main, ["--data", str(config.data), "--out", str(config.out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "RANK is set" in line
    assert "WORLD_SIZE" in line


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are a matter of POSIX")
def test_a_signal_to_workers_too_stops_and_saves(config: TrainingConfig, tmp_path: Path) -> None:
    """Job schedulers and torchrun send SIGTERM to a whole process group."""
    command = [sys.executable, "-m", "gconet.train.train_command", "--data", str(config.data),
               "--out", str(config.out), "--group-size", "2", "--sizes", "32", "--workers", "1",
               "--steps", "100000"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    errors = tmp_path / "errors"
    with errors.open("w") as file, subprocess.Popen(
        command, env=environment, stderr=file, start_new_session=True
    ) as process:  # fmt: skip
        log = config.out / "log.jsonl"
        while process.poll() is None and not (log.exists() and log.read_text()):
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(120) == 130, errors.read_text()
    assert "stopped and saved at step" in errors.read_text()
    assert (config.out / "state.pt").is_file()
