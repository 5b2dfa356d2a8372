"""The arguments of a training run, shared by `gconet train` and `gconet ablate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gconet.runtime.command_line import Parser, positive
from gconet.runtime.errors import UsageError
from gconet.train.config import Augmentation, TrainingConfig
from gconet.train.model import Architecture


def add_training_arguments(parser: Parser) -> None:
    """Add everything `training_config` reads; defaults are the paper's."""
    default = TrainingConfig(Path(), Path())
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
    for switch, without in (("gam", "plain average pooling"), ("gcm", "no crossed pairs"), ("acm", "no group labels")):
        network.add_argument(f"--no-{switch}", action="store_true", help=f"leave it out: {without}")
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


def training_config(o: argparse.Namespace) -> TrainingConfig:
    """The run that parsed arguments describe; raises UsageError where they contradict each other."""
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
