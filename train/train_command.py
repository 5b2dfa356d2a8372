"""`gconet train`: train GCoNet; the paper's recipe by default."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist

from gconet.runtime.command_line import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, Parser, run
from gconet.runtime.errors import UsageError
from gconet.runtime.preprocess import Preprocessing
from gconet.train.arguments import add_training_arguments, training_config
from gconet.train.checkpoint import CheckpointInfo, load_vgg16
from gconet.train.config import TrainingConfig
from gconet.train.groups import DataError, check_groups, hold_out, read_groups
from gconet.train.interruption import Interruption
from gconet.train.loop import freeze, make_optimizer, train
from gconet.train.model import GCoNet, initialise
from gconet.train.observer import Observer
from gconet.train.pairs import PairDataset
from gconet.train.training_state import TrainingState

EPILOG = """\
examples:
  gconet train --data DUTS_class --vgg vgg16.pth --out runs/paper              the paper's recipe
  gconet train --data DATA --cutouts CUTOUTS --synthetic 0.35 --distractor 0.33 --rotation 20 --scale 0.8 1.3 \\
      --no-quarter-turns --group-size 6 --repeat-photos --sizes 112 160 224 --bf16 --channels-last --out runs/small
  torchrun --nproc-per-node 4 -m gconet.train.train_command --data DUTS_class --pairs-per-step 4 --out runs/four

Data: images/<set>/<group>/*.jpg and gts/<set>/<group>/*.png. The same command again goes on where it stopped; Ctrl-C
saves first. best.safetensors is the best on --hold-out, last.safetensors the newest."""


def main(arguments: Sequence[str]) -> int:
    """Run a training; exit code 130 after Ctrl-C, with the state saved."""
    parser = Parser("gconet train", "Train GCoNet on groups of photos with masks.", EPILOG)
    add_training_arguments(parser)
    config = training_config(parser.parse_args(arguments))
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if config.device.startswith("cuda") else "gloo")
        if config.device == "cuda":
            config = dataclasses.replace(config, device=f"cuda:{os.environ['LOCAL_RANK']}")
    try:
        return run_training(config)
    except DataError as error:
        for problem in error.problems:
            print(f"gconet: {problem}", file=sys.stderr)
        return EXIT_BAD_INPUT
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def run_training(config: TrainingConfig) -> int:
    """Check the data, set the run up or resume it, and train.

    Raises
    ------
    DataError, CheckpointError, UsageError
        For what cannot be used; before training starts.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    if config.pairs_per_step % world:
        raise UsageError(f"--pairs-per-step {config.pairs_per_step} cannot be shared by {world} processes")
    groups, held_out = hold_out(read_groups(config.data), config.hold_out)
    check_groups([*groups, *held_out], 1 if config.repeat_photos else config.group_size)
    steps = config.steps or config.epochs * (len(groups) // 2)
    classes = PairDataset(groups, config, steps).classes
    config = dataclasses.replace(config, architecture=dataclasses.replace(config.architecture, classes=classes))

    torch.manual_seed(config.seed)
    model = initialise(GCoNet(config.architecture), config.seed)
    if config.vgg:
        load_vgg16(model, config.vgg)
    freeze(model, config.trainable_encoder)
    model.to(config.device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing from torch's stubs
    info = CheckpointInfo(config.architecture, Preprocessing(config.sizes[-1]), _provenance(config, steps))
    scaler = torch.amp.GradScaler(torch.device(config.device).type, enabled=config.arithmetic == "fp16")
    state = TrainingState(
        config.out, model, make_optimizer(model, config), scaler, info, _fingerprint(config, steps), config.sizes[-1]
    )
    if state.resume() and state.step >= steps:
        print(f"{config.out} is complete: {steps} steps")
        return EXIT_DONE
    with Observer(config.out, state.step, steps) as observer, Interruption() as stop:
        train(model, groups, held_out, steps, state, observer, config, stop)
    if state.step < steps:
        print(f"stopped and saved at step {state.step}: the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(f"{config.out}: {steps} steps done")
    return EXIT_DONE


def _provenance(config: TrainingConfig, steps: int) -> str:
    return f"trained by gconet train: {steps} steps on {config.data.name}, seed {config.seed}"


def _fingerprint(config: TrainingConfig, steps: int) -> str:
    """What must not change between the parts of a run."""
    augmentation = dataclasses.asdict(config.augmentation)
    return (
        f"seed {config.seed}, {steps} steps, group {config.group_size}, pairs {config.pairs_per_step}, "
        f"sizes {config.sizes}, rate {config.learning_rate} {config.schedule}, {augmentation}, "
        f"held out {sorted(config.hold_out)}"
    )


if __name__ == "__main__":
    sys.exit(run(main))
