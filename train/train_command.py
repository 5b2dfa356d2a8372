"""`gconet train`: train GCoNet; the paper's recipe by default."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist

from gconet.runtime.command_line import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, Parser, run
from gconet.runtime.errors import UsageError, one_line
from gconet.runtime.paths import folder_problem
from gconet.runtime.preprocess import Preprocessing
from gconet.train.arguments import add_run_arguments, add_training_arguments, training_config
from gconet.train.checkpoint import CheckpointInfo, load_start, load_vgg16
from gconet.train.config import TrainingConfig
from gconet.train.data_check import checked_groups
from gconet.train.failures import explained
from gconet.train.groups import DataError, LabelledGroup
from gconet.train.informed_start import start_informed
from gconet.train.interruption import Interruption
from gconet.train.loop import freeze, make_optimizer, train
from gconet.train.model import GCoNet, initialise
from gconet.train.observer import Observer
from gconet.train.pairs import PairDataset
from gconet.train.processes import Processes
from gconet.train.training_state import STATE_NAME, TrainingState

JOINING = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets
MAY_CHANGE = (
    "out",
    "device",
    "workers",
    "validate_every",
    "picture_every",
    "save_every",
    "features",
)  # when a run goes on

EPILOG = """\
examples:
  gconet train --data duts --vgg vgg16.pth --small-groups cut --out runs/paper              the paper's recipe
  gconet train --data DATA --cutouts CUTOUTS --synthetic 0.35 --distractor 0.33 --rotation 20 --scale 0.8 1.3 \\
      --group-size 6 --small-groups repeat --sizes 112 160 224 --bf16 --channels-last --out runs/small
  torchrun --nproc-per-node 4 -m gconet.train.train_command --data duts --vgg vgg16.pth --small-groups cut \\
      --device cuda --pairs-per-step 4 --out runs/four

Data: images/<set>/<group>/*.jpg and gts/<set>/<group>/*.png below --data; every group there is trained on, but those of
--hold-out. The same command again goes on where it stopped; Ctrl-C saves first. best.safetensors is the best on
--hold-out, last.safetensors the newest."""


def main(arguments: Sequence[str]) -> int:
    """Run a training; exit code 130 after Ctrl-C, with the state saved."""
    parser = Parser("gconet train", "Train GCoNet on groups of photos with masks.", EPILOG)
    add_run_arguments(parser)
    add_training_arguments(parser)
    config = training_config(parser.parse_args(arguments))
    if "RANK" in os.environ and not dist.is_initialized():
        if missing := [name for name in JOINING if name not in os.environ]:
            raise UsageError(
                f"RANK is set, {', '.join(missing)} not: start with torchrun, or unset RANK to train alone"
            )
        if config.device == "cuda":
            config = dataclasses.replace(config, device=f"cuda:{os.environ['LOCAL_RANK']}")
        check_device(config.device)
        dist.init_process_group("nccl" if config.device.startswith("cuda") else "gloo")
    try:
        return run_training(config)
    except DataError as error:
        return print_problems(error)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def print_problems(error: DataError) -> int:
    """Print a line for each thing that is wrong with the data; the exit code."""
    for problem in error.problems:
        print(f"gconet: {problem}", file=sys.stderr)
    return EXIT_BAD_INPUT


def run_training(config: TrainingConfig) -> int:
    """Check machine and data, then train; errors as for `train_on`, and DataError."""
    check_machine(config)
    return train_on(config, *checked_groups(config))


def check_machine(config: TrainingConfig) -> None:
    """Raise UsageError for what needs no data to be known.

    That is if the device is not there, `out` cannot be written, or steps or pairs cannot be shared out.
    """
    if config.steps:
        _check_parts(config, config.steps)
    check_device(config.device)
    for option, folder in (("--out", config.out), ("--features", config.features)):
        if folder and (problem := folder_problem(folder)):
            raise UsageError(f"{option} {folder}: {problem}; choose another folder")
    processes = Processes.current()
    if config.pairs_per_step % processes.count:
        raise UsageError(f"--pairs-per-step {config.pairs_per_step} cannot be shared by {processes.count} processes")


def train_on(config: TrainingConfig, groups: Sequence[LabelledGroup], held_out: Sequence[LabelledGroup]) -> int:
    """Set a run on checked data up, or resume it, and train.

    Raises
    ------
    CheckpointError, UsageError
        For what cannot be used; before training starts.
    TrainingError, PhotoError
        As for `train` and `explained`; while it goes on.
    """
    processes = Processes.current()
    steps = config.steps_over(len(groups))
    _check_parts(config, steps)
    classes = PairDataset(groups, config, steps).classes
    config = dataclasses.replace(config, architecture=dataclasses.replace(config.architecture, classes=classes))

    torch.manual_seed(config.seed)
    model = initialise(GCoNet(config.architecture), config.seed)
    if config.vgg:
        load_vgg16(model, config.vgg)
    size = config.sizes[-1]  # of the photos that the weights are for
    if config.start_from:
        size = load_start(model, config.start_from).preprocessing.size
    model.to(config.device)
    if config.informed_start and not (config.out / STATE_NAME).is_file():
        processes.say("taking statistics of training photos")
        start_informed(model, groups, config, steps)
    freeze(model, config.trainable_encoder)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing from torch's stubs
    info = CheckpointInfo(config.architecture, Preprocessing(config.sizes[-1]), _provenance(config, steps))
    scaler = torch.amp.GradScaler(torch.device(config.device).type, enabled=config.arithmetic == "fp16")
    settings = _settings(config, steps, groups, held_out)
    state = TrainingState(config.out, model, make_optimizer(model, config, steps), scaler, info, settings, size)
    state_file = config.out / STATE_NAME
    with explained(state_file, config.device):
        resumed = state.resume()
    if resumed and state.step >= steps:
        processes.say(f"{config.out} is complete: {steps} steps")
        return EXIT_DONE
    watching = Observer(config.out, state.step, steps) if processes.rank == 0 else contextlib.nullcontext()
    with explained(state_file, config.device), watching as observer, Interruption() as stop:
        train(model, groups, held_out, steps, state, observer, config, stop)
    if state.step < steps:
        processes.say(f"stopped and saved at step {state.step}: the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED
    processes.say(f"{config.out}: {steps} steps done")
    return EXIT_DONE


def _check_parts(config: TrainingConfig, steps: int) -> None:
    if steps < config.parts:
        raise UsageError(
            f"a run of {steps} steps has fewer than the {config.parts} parts by --sizes or --levels: give more --steps"
        )


def check_device(name: str) -> None:
    """Raise UsageError unless torch can compute there."""
    try:
        if torch.device(name).type not in ("cpu", "cuda"):
            raise UsageError(f"--device {name}: cpu and cuda are what is trained on")
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} cannot be used here ({one_line(error)}): try --device cpu") from error


def _provenance(config: TrainingConfig, steps: int) -> str:
    start = f", from {config.start_from.name}" if config.start_from else ""
    return f"trained by gconet train: {steps} steps on {config.data.resolve().name}, seed {config.seed}{start}"


def _settings(
    config: TrainingConfig, steps: int, groups: Sequence[LabelledGroup], held_out: Sequence[LabelledGroup]
) -> str:
    """What must not change between the parts of a run, as JSON: all that the result depends on."""
    settings = dataclasses.asdict(config)
    for key in ("epochs", *MAY_CHANGE):
        del settings[key]
    for key in ("data", "cutouts", "vgg", "start_from"):
        settings[key] = settings[key] and settings[key].resolve().name  # the same data may have moved
    settings |= {
        "steps": steps,
        "hold_out": {group.name: len(group.samples) for group in held_out},
        "groups": {group.name: len(group.samples) for group in groups},
    }
    return json.dumps(settings, sort_keys=True)


if __name__ == "__main__":
    sys.exit(run(main))
