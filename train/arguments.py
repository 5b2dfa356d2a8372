"""The arguments of training runs, shared by `gconet train` and `gconet ablate`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

from gconet.runtime.command_line import Parser, positive, positive_float
from gconet.runtime.errors import UsageError
from gconet.runtime.preprocess import check_size
from gconet.train.config import COARSE, Augmentation, SmallGroups, TrainingConfig
from gconet.train.losses import LossWeights
from gconet.train.model import Architecture, Encoder

MAX_SEED = 2**63 - 1
SWITCHES = {"gam": "plain average pooling", "gcm": "no crossed pairs", "acm": "no group labels"}


def seed(text: str) -> int:
    """Argument type: what seeds a run."""
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MAX_SEED}")
    return int(text)


def add_run_arguments(parser: Parser) -> None:
    """Add what tells one run from another; an ablation sets these itself."""
    parser.add_argument(
        "--seed", type=seed, default=0, help="of weights, order and augmentation (default: %(default)s)"
    )
    for switch, without in SWITCHES.items():
        parser.add_argument(f"--no-{switch}", action="store_true", help=f"leave it out: {without}")


def add_training_arguments(parser: Parser) -> None:
    """Add all else that `training_config` reads; defaults are the paper's."""
    default = TrainingConfig(Path(), Path())
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, required=True, help="folder with images/ and gts/")
    data.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    data.add_argument(
        "--hold-out",
        nargs="+",
        default=[],
        metavar="GROUP",
        help="groups to validate on, not to train on, such as SET/apple (default: none)",
    )
    data.add_argument(
        "--cutouts", type=Path, help="folder of RGBA cut-outs for --synthetic, and --distractor (default: none)"
    )
    data.add_argument(
        "--vgg", type=Path, help="ImageNet VGG-16 weights for the encoder, torchvision's names (default: random ones)"
    )
    data.add_argument(
        "--start-from", type=Path, metavar="CHECKPOINT", help="go on with these weights, in a run of its own"
    )
    data.add_argument(
        "--group-size", type=positive, default=default.group_size, help="photos a group (default: %(default)s)"
    )
    data.add_argument("--small-groups", choices=get_args(SmallGroups), default=default.small_groups,
                      help="with too few photos: refuse them, cut both of a pair to the smaller, as the authors do, or "
                      "repeat photos (default: %(default)s)")  # fmt: skip
    data.add_argument("--balance", type=_within(0, 1), default=default.balance, metavar="POWER",
                      help="draw groups as often as this power of their number of photos; 0 draws all alike "
                      "(default: %(default)s)")  # fmt: skip
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--epochs", type=positive, default=default.epochs, help="times each group leads a pair (default: %(default)s)"
    )
    recipe.add_argument("--steps", type=positive, default=0, help="optimizer steps, instead of --epochs")
    recipe.add_argument(
        "--sizes", type=_size, nargs="+", default=list(default.sizes),
        help=f"input sizes for equal parts of the run (default: {_spaced(default.sizes)})",
    )  # fmt: skip
    recipe.add_argument(
        "--levels", type=int, choices=[1, 2, 3, 4], nargs="+", default=list(default.levels),
        help="finest decoder levels to train in equal parts of the run; the last is 1 "
        f"(default: {_spaced(default.levels)})",
    )  # fmt: skip
    recipe.add_argument("--reuse", type=positive, default=default.reuse, metavar="STEPS",
                        help="while --levels are 4 or 3: so many steps for each pair; what the frozen encoder makes of "
                        "its photos is computed once and kept on disk (default: one)")  # fmt: skip
    recipe.add_argument("--features", type=Path, metavar="FOLDER",
                        help="where --reuse keeps it; runs that differ in other things share it "
                        "(default: OUT/features)")  # fmt: skip
    recipe.add_argument(
        "--pairs-per-step", type=positive, default=1, help="pairs averaged for a step (default: %(default)s)"
    )
    recipe.add_argument(
        "--learning-rate", type=positive_float, default=default.learning_rate, help="of Adam (default: %(default)s)"
    )
    recipe.add_argument("--schedule", choices=["constant", "cosine"], default="constant",
                        help="of the rate after the warm-up; cosine falls to 0 (default: %(default)s)")  # fmt: skip
    recipe.add_argument("--warm-up", type=_whole, default=0, metavar="STEPS",
                        help="over which the rate rises, also when a finer level joins (default: none)")  # fmt: skip
    recipe.add_argument("--average", type=_whole, default=default.average, metavar="STEPS",
                        help="keep a running mean of the weights over about so many steps (default: off)")  # fmt: skip
    recipe.add_argument("--informed-start", action="store_true",
                        help="start from statistics of training photos: encoder layers of unit size, a GAM that "
                        "compares whitened features")  # fmt: skip
    for name, text in (
        ("collaborating", "of the crossed pairs"),
        ("classification", "of the group labels"),
        ("attention", "of attention that is not on the shared object"),
        ("crossed", "of coarse maps drawn with the other group's consensus"),
        ("pixel", "of a cross-entropy beside the soft IoU; keeps logits within bounds"),
    ):
        recipe.add_argument(f"--{name}-loss", type=_weight, default=getattr(default.weights, name), metavar="WEIGHT",
                            help=f"{text} (default: %(default)s)")  # fmt: skip
    recipe.add_argument("--trainable-encoder", nargs="*", default=list(default.trainable_encoder), metavar="LAYER",
                        help="encoder layers that learn, by prefix "
                        f"(default: {_spaced(default.trainable_encoder)})")  # fmt: skip
    recipe.add_argument("--encoder-rate", type=positive_float, default=default.encoder_rate,
                        help="their rate, as a share of the others' (default: %(default)s)")  # fmt: skip
    recipe.add_argument("--gam-rate", type=positive_float, default=default.gam_rate,
                        help="the GAM's rate, as a share of the others' (default: %(default)s)")  # fmt: skip
    augmentation = parser.add_argument_group("augmentation; the first two are the paper's")
    augmentation.add_argument("--no-flip", action="store_true", help="never mirror photos (default: half of them)")
    for name, type_, text in (
        ("rotation", _within(0, 180), "largest turn, degrees"),
        ("colour", _within(0, 1, below=True), "largest relative change of brightness, contrast and saturation"),
        ("synthetic", _within(0, 1), "share of groups made of cut-outs"),
        ("instances", _within(0, 1), "share of groups made of one object of a photo, cut out by its mask"),
        ("distractor", _within(0, 1), "share of photos with another object pasted in"),
        ("jigsaw", _within(0, 1), "share of photos put beside one of the other group"),
    ):
        augmentation.add_argument(f"--{name}", type=type_, default=getattr(default.augmentation, name),
                                  help=f"{text} (default: %(default)s)")  # fmt: skip
    augmentation.add_argument("--scale", type=positive_float, nargs=2, default=list(default.augmentation.scale),
                              help="smallest and largest zoom "
                              f"(default: {_spaced(default.augmentation.scale)})")  # fmt: skip
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    half = machine.add_mutually_exclusive_group()
    half.add_argument("--bf16", dest="arithmetic", action="store_const", const="bf16", default="fp32",
                      help="compute the forward pass in bfloat16 (default: in float32)")  # fmt: skip
    half.add_argument("--fp16", dest="arithmetic", action="store_const", const="fp16",
                      help="the same in float16, with scaled losses")  # fmt: skip
    machine.add_argument("--channels-last", action="store_true", help="faster on most machines")
    machine.add_argument("--workers", type=_whole, default=default.workers,
                         help="processes that prepare photos (default: %(default)s)")  # fmt: skip
    for name, text in (
        ("validate", "score on --hold-out"),
        ("picture", "draw maps of some groups"),
        ("save", "write what the run goes on from"),
    ):
        machine.add_argument(f"--{name}-every", type=positive, default=getattr(default, f"{name}_every"),
                             metavar="STEPS", help=f"{text} (default: %(default)s)")  # fmt: skip


def training_config(o: argparse.Namespace) -> TrainingConfig:
    """The run that parsed arguments describe; raises UsageError where they contradict each other."""
    if o.synthetic and o.cutouts is None:
        raise UsageError("--synthetic needs --cutouts")
    if o.cutouts and not o.synthetic and not o.distractor:
        raise UsageError(f"--cutouts {o.cutouts} are for --synthetic and --distractor: add one of them")
    if o.no_gam and o.attention_loss:
        raise UsageError("--attention-loss teaches the GAM, which --no-gam leaves out: leave one of them out")
    if o.synthetic + o.instances > 1:
        raise UsageError(f"--synthetic {o.synthetic} and --instances {o.instances} are shares of the same groups: "
                         "together at most 1")  # fmt: skip
    if o.scale[0] > o.scale[1]:
        raise UsageError(f"--scale {o.scale[0]} {o.scale[1]}: the smallest zoom comes first")
    if o.start_from and (o.vgg or o.informed_start):
        raise UsageError("--start-from brings all weights: leave --vgg and --informed-start out")
    layers = [name for name, _ in Encoder((1,) * 5).named_parameters()]
    for prefix in o.trainable_encoder:
        if not any(layer.startswith(prefix) for layer in layers):
            raise UsageError(f"--trainable-encoder {prefix} is the start of no encoder layer: they are named "
                             "conv1.conv1_1 to conv5.conv5_3")  # fmt: skip
    if o.reuse > 1:
        _check_reuse(o)
    elif o.features:
        raise UsageError(f"--features {o.features} is where --reuse keeps features: add it, such as --reuse 4")
    if o.levels != sorted(o.levels, reverse=True):
        raise UsageError(f"--levels {_spaced(o.levels)}: coarse levels come first, they are not trained again")
    if o.levels[-1] != 1:
        raise UsageError(f"--levels {_spaced(o.levels)}: the last part trains level 1, which is the answer")
    return TrainingConfig(
        **{
            key: getattr(o, key)
            for key in ("data", "out", "cutouts", "vgg", "start_from", "group_size", "small_groups", "epochs", "steps",
                        "schedule", "pairs_per_step", "learning_rate", "warm_up", "encoder_rate", "seed", "device",
                        "arithmetic", "channels_last", "workers", "average", "informed_start", "gam_rate",
                        "validate_every", "picture_every", "save_every", "balance", "reuse", "features")
        },
        hold_out=tuple(o.hold_out),
        sizes=tuple(o.sizes),
        levels=tuple(o.levels),
        trainable_encoder=tuple(o.trainable_encoder),
        architecture=Architecture(gam=not o.no_gam, gcm=not o.no_gcm, acm=not o.no_acm),
        augmentation=Augmentation(
            flip=not o.no_flip, rotation=o.rotation, scale=tuple(o.scale), colour=o.colour, synthetic=o.synthetic,
            instances=o.instances, distractor=o.distractor, jigsaw=o.jigsaw,
        ),
        weights=LossWeights(
            collaborating=o.collaborating_loss,
            classification=o.classification_loss,
            pixel=o.pixel_loss,
            attention=o.attention_loss,
            crossed=o.crossed_loss,
        ),
    )  # fmt: skip


def _check_reuse(o: argparse.Namespace) -> None:
    """Raise UsageError where features cannot be computed once."""
    if o.levels[0] < COARSE:
        raise UsageError(f"--reuse serves steps that train levels 4 or 3 only: start with them, as --levels {COARSE} 1")
    if len(o.sizes) > 1:
        raise UsageError(f"--reuse {o.reuse} keeps features of one input size: give one of --sizes {_spaced(o.sizes)}")
    if any("conv1.conv1_1".startswith(prefix[:5]) for prefix in o.trainable_encoder):
        raise UsageError("--reuse keeps what frozen encoder blocks compute: leave conv1 out of --trainable-encoder")


def _spaced(values: Iterable[object]) -> str:
    return " ".join(map(str, values))


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _weight(text: str) -> float:
    return _within(0, math.inf, below=True)(text)


def _size(text: str) -> int:
    size = _whole(text)
    try:
        return check_size(size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _within(low: float, high: float, below: bool = False) -> Callable[[str], float]:
    """Argument type: a number in [low, high], or in [low, high) with `below`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (below and value == high):
            upwards = "up" if high == math.inf else f"to {'below ' if below else ''}{high}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} {upwards}")
        return value

    return number
