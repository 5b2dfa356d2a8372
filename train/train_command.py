"""`gconet train`: train GCoNet; the paper's recipe by default."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from gconet.runtime.command_line import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, Parser, positive, run
from gconet.runtime.errors import UsageError
from gconet.runtime.preprocess import Preprocessing
from gconet.train.checkpoint import CheckpointInfo, load_vgg16
from gconet.train.config import Augmentation, TrainingConfig
from gconet.train.groups import DataError, check_groups, hold_out, read_groups
from gconet.train.interruption import Interruption
from gconet.train.loop import freeze, make_optimizer, train
from gconet.train.model import Architecture, GCoNet, initialise
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
    config = _configuration(arguments)
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


def _configuration(arguments: Sequence[str]) -> TrainingConfig:
    default = TrainingConfig(Path(), Path())
    parser = Parser("gconet train", "Train GCoNet on groups of photos with masks.", EPILOG)
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, required=True, help="folder with images/ and gts/")
    data.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    data.add_argument(
        "--hold-out", nargs="+", default=[], metavar="GROUP", help="groups to validate on, not to train on"
    )
    data.add_argument("--cutouts", type=Path, help="folder of RGBA cut-outs for --synthetic and --distractor")
    data.add_argument("--vgg", type=Path, help="ImageNet VGG-16 weights for the encoder, torchvision's names")
    data.add_argument("--group-size", type=positive, default=default.group_size, help="photos a group (%(default)s)")
    data.add_argument("--repeat-photos", action="store_true", help="let small groups repeat photos")
    network = parser.add_argument_group("network")
    for switch, what in (("gam", "plain average pooling"), ("gcm", "no crossed pairs"), ("acm", "no group labels")):
        network.add_argument(f"--no-{switch}", action="store_true", help=f"ablation: {what}")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=positive, default=default.epochs, help="passes over the groups (%(default)s)")
    recipe.add_argument("--steps", type=positive, default=0, help="instead of --epochs")
    recipe.add_argument(
        "--sizes", type=positive, nargs="+", default=[224], help="input sizes for equal parts of the run"
    )
    recipe.add_argument("--pairs-per-step", type=positive, default=1, help="pairs averaged for a step (%(default)s)")
    recipe.add_argument("--learning-rate", type=float, default=default.learning_rate, help="of Adam (%(default)s)")
    recipe.add_argument("--schedule", choices=["constant", "cosine"], default="constant", help="(%(default)s)")
    recipe.add_argument("--trainable-encoder", nargs="*", default=list(default.trainable_encoder), metavar="LAYER",
                        help="encoder layers that learn, by prefix (conv5.conv5_3)")  # fmt: skip
    recipe.add_argument("--encoder-rate", type=float, default=default.encoder_rate, help="relative rate (%(default)s)")
    recipe.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    augmentation = parser.add_argument_group("augmentation; the first two are the paper's")
    augmentation.add_argument("--no-flip", action="store_true")
    augmentation.add_argument("--no-quarter-turns", action="store_true")
    augmentation.add_argument("--rotation", type=float, default=0.0, help="largest turn, degrees")
    augmentation.add_argument("--scale", type=float, nargs=2, default=[1.0, 1.0], help="smallest and largest zoom")
    augmentation.add_argument("--colour", type=float, default=0.0, help="largest relative change")
    augmentation.add_argument("--synthetic", type=float, default=0.0, help="share of groups made of cut-outs")
    augmentation.add_argument("--distractor", type=float, default=0.0, help="share of photos with a cut-out pasted in")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    machine.add_argument("--bf16", dest="arithmetic", action="store_const", const="bf16", default="fp32")
    machine.add_argument("--fp16", dest="arithmetic", action="store_const", const="fp16")
    machine.add_argument("--channels-last", action="store_true", help="faster on most machines")
    machine.add_argument("--workers", type=int, default=default.workers, help="processes that prepare photos")
    for name in ("validate_every", "picture_every", "save_every"):
        machine.add_argument(f"--{name.replace('_', '-')}", type=positive, default=getattr(default, name),
                             metavar="STEPS", help="(%(default)s)")  # fmt: skip
    o = parser.parse_args(arguments)
    if (o.synthetic or o.distractor) and o.cutouts is None:
        raise UsageError("--synthetic and --distractor need --cutouts")
    return TrainingConfig(
        **{
            key: getattr(o, key)
            for key in ("data", "out", "cutouts", "vgg", "group_size", "repeat_photos", "epochs", "steps", "schedule",
                        "pairs_per_step", "learning_rate", "encoder_rate", "seed", "device", "arithmetic",
                        "channels_last", "workers", "validate_every", "picture_every", "save_every")
        },
        hold_out=tuple(o.hold_out),
        sizes=tuple(o.sizes),
        trainable_encoder=tuple(o.trainable_encoder),
        architecture=Architecture(gam=not o.no_gam, gcm=not o.no_gcm, acm=not o.no_acm),
        augmentation=Augmentation(
            flip=not o.no_flip, quarter_turns=not o.no_quarter_turns, rotation=o.rotation, scale=tuple(o.scale),
            colour=o.colour, synthetic=o.synthetic, distractor=o.distractor,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
