"""The data of a run, with everything that is wrong with them named before training starts."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from gconet.runtime.errors import GconetError
from gconet.runtime.photos import read_photo
from gconet.train.config import TrainingConfig
from gconet.train.cutouts import Cutouts
from gconet.train.groups import (
    DataError,
    LabelledGroup,
    Sample,
    hold_out,
    leave_out_copies,
    mask_problem,
    read_groups,
    read_mask,
)
from gconet.train.processes import Processes


def checked_groups(config: TrainingConfig) -> tuple[list[LabelledGroup], list[LabelledGroup]]:
    """The groups to train on and those held out; every photo, mask and cut-out has been opened.

    Raises
    ------
    DataError
        Naming every unreadable photo, mask or cut-out, every mask of another size than its photo or without a bright
        value, every group with too few photos, fewer than two groups, and names of held-out groups that do not exist.
    """
    training, held_out = hold_out(read_groups(config.data), config.hold_out)
    cutouts = Cutouts.below(config.cutouts)
    problems = _too_few(training, config)
    samples = [sample for group in [*training, *held_out] for sample in group.samples]
    quiet = True if Processes.current().rank else None  # None: where nobody looks
    with tqdm(total=len(samples) + len(cutouts.pictures), desc="checking data", disable=quiet, leave=False) as progress:
        for sample in samples:
            problems += _sample_problems(sample)
            progress.update()
        for index in range(len(cutouts.pictures)):
            problems += _cutout_problems(cutouts, index)
            progress.update()
    if not problems:
        training = leave_out_copies(training, held_out)
        problems = [
            f"all photos of the group {group.name} are in held-out groups too: leave it out, or hold it out"
            for group in training
            if not group.samples
        ]
        problems = problems or _too_few(training, config)
    if problems:
        raise DataError(problems)
    return training, held_out


def _too_few(groups: Sequence[LabelledGroup], config: TrainingConfig) -> list[str]:
    wanted = config.group_size if config.small_groups == "refuse" else 1
    problems = [
        f"the group {group.name} has {len(group.samples)} photos to train on, {wanted} are asked for: "
        "lower --group-size, pass --small-groups cut or repeat, or leave the group out"
        for group in groups
        if len(group.samples) < wanted
    ]
    if len(groups) < 2:
        problems.append(f"{len(groups)} groups are left to train on, at least two are needed")
    return problems


def _sample_problems(sample: Sample) -> list[str]:
    try:
        photo = read_photo(sample.photo)
    except GconetError as error:
        return [str(error)]
    try:
        mask = read_mask(sample.mask)
    except GconetError as error:
        return [f"the mask {error}"]
    if mask.shape != photo.shape[:2]:
        sizes = f"{mask.shape[1]}×{mask.shape[0]}, its photo {photo.shape[1]}×{photo.shape[0]}"
        return [f"the mask {sample.mask} is {sizes}"]
    return [f"the mask {sample.mask} {problem}"] if (problem := mask_problem(mask)) else []


def _cutout_problems(cutouts: Cutouts, index: int) -> list[str]:
    try:
        cutouts.read(index)
    except GconetError as error:
        return [str(error)]
    return []
