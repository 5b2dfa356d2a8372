"""What a training run is made of. The defaults are the paper's recipe [4.1], in detail as in the authors' code."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gconet.train.losses import LossWeights
from gconet.train.model import Architecture

Arithmetic = Literal["fp32", "bf16", "fp16"]
SmallGroups = Literal["refuse", "cut", "repeat"]
COARSE = 3  # decoder levels from here up look at the encoder blocks of the same numbers, and the last


@dataclass(frozen=True)
class Augmentation:
    """How samples vary. The first two are the paper's; the others are ours and off by default.

    Attributes
    ----------
    flip : mirror half of the samples.
    rotation : largest turn to either side, degrees; every angle is as likely.
    scale : smallest and largest zoom; other than (1, 1) it also moves samples off centre.
    colour : largest relative change of brightness, contrast and saturation.
    synthetic : share of groups made of a cut-out pasted over photos of other groups; needs cut-outs.
    instances : the same with one object cut out of its photo by its mask; with it, such objects are distractors too.
    distractor : share of real photos that get something else pasted in: the other group's object, or a cut-out.
    jigsaw : share of photos put beside a photo of the other group of the pair, of which nothing is marked
        (Zhang et al., Gradient-Induced Co-Saliency Detection, ECCV 2020).
    """

    flip: bool = True
    rotation: float = 90.0
    scale: tuple[float, float] = (1.0, 1.0)
    colour: float = 0.0
    synthetic: float = 0.0
    instances: float = 0.0
    distractor: float = 0.0
    jigsaw: float = 0.0


@dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    Attributes
    ----------
    data : folder with `images/` and `gts/`.
    out : folder for checkpoints and logs.
    cutouts : folder of RGBA pictures for synthetic groups and distractors.
    vgg : ImageNet weights for the encoder, torchvision's names.
    start_from : checkpoint whose weights the run starts with, instead of `vgg`; its optimizer starts anew.
    hold_out : groups to validate on, left out of training.
    architecture : switches GAM, GCM, ACM; `classes` is set from the data.
    group_size : photos of each of the two groups of a pair.
    small_groups : what to do about groups with fewer photos than `group_size`: "refuse" them before training; "cut"
        both groups of the pair to the smaller, as the authors do; "repeat" photos, in other augmentations.
    balance : how much larger groups are preferred: groups are drawn as often as this power of their number of photos.
        With 0 each leads a pair once an epoch, as the paper has it.
    pairs_per_step : pairs whose gradients are averaged for one step, over all processes.
    epochs : how often each group is the first of a pair.
    steps : optimizer steps; 0 stands for `epochs`.
    sizes : input sizes for equal parts of the run, smallest first to make early steps cheap; the last one is final.
    levels : finest decoder level to train in equal parts of the run, coarse first for the same reason: two thirds of a
        step's arithmetic are spent on levels 2 and 1, which draw borders. The last one is 1, the answer. A level that
        joins later passes on at first what the one above it has made, see `new_levels.py`, unless `start_from` brings
        it.
    reuse : steps that a pair serves while levels are coarse, 4 or 3. With more than 1, what the frozen encoder blocks
        make of its photos is computed once and kept, see `kept_features.py`.
    features : folder to keep it in, which runs may share; None for one below `out`.
    learning_rate, betas : of Adam.
    schedule : "constant", or "cosine" down to 0.
    warm_up : steps over which the rate rises from near 0. That of a level that joins later rises then, and its cosine
        spans the steps that are left.
    average : of how many steps, about, the weights are a running mean in checkpoints and for scores; 0 keeps the last.
    informed_start : scale the encoder's layers and set the GAM up by statistics of training photos, see
        `informed_start.py`.
    trainable_encoder : encoder layers that learn, by prefix; all others are frozen.
    encoder_rate : their learning rate relative to the rest.
    gam_rate : the same of the GAM's.
    arithmetic : of the forward pass; losses are fp32.
    """

    data: Path
    out: Path
    cutouts: Path | None = None
    vgg: Path | None = None
    start_from: Path | None = None
    hold_out: tuple[str, ...] = ()
    architecture: Architecture = field(default_factory=Architecture)
    weights: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)
    group_size: int = 16
    small_groups: SmallGroups = "refuse"
    balance: float = 0.0
    pairs_per_step: int = 1
    epochs: int = 50
    steps: int = 0
    sizes: tuple[int, ...] = (224,)
    levels: tuple[int, ...] = (1,)
    reuse: int = 1
    features: Path | None = None
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up: int = 0
    average: int = 0
    informed_start: bool = False
    trainable_encoder: tuple[str, ...] = ("conv5.conv5_3",)
    encoder_rate: float = 0.01
    gam_rate: float = 1.0
    arithmetic: Arithmetic = "fp32"
    channels_last: bool = False
    device: str = "cpu"
    workers: int = 1
    seed: int = 0
    validate_every: int = 200
    picture_every: int = 300
    save_every: int = 100

    def steps_over(self, groups: int) -> int:
        """Optimizer steps of the whole run on this many groups."""
        return self.steps or -(-self.epochs * groups // self.pairs_per_step)

    @property
    def parts(self) -> int:
        """Steps a run must have for all of its sizes and levels to be trained."""
        return max(len(self.sizes), len(self.levels))

    def size_at(self, step: int, steps: int) -> int:
        """Input size of a step."""
        return _part(self.sizes, step, steps)

    def level_at(self, step: int, steps: int) -> int:
        """Finest decoder level trained in a step."""
        return _part(self.levels, step, steps)

    def joins_at(self, level: int, steps: int) -> int:
        """First step that trains this level."""
        return next((step for step in range(steps) if self.level_at(step, steps) <= level), steps)


def _part(values: tuple[int, ...], step: int, steps: int) -> int:
    return values[min(step * len(values) // steps, len(values) - 1)]
