"""Groups in which the shared object is not the only one in view, made of a data set's photos and masks.

    python bench/mixed_groups.py --data DATA --groups COCO256/elephant COCO256/umbrella … --out mixed

Every group is mixed with the next one given: half of its photos are narrowed or flattened to make room for a photo of
the other group, so that the other object stands in several photos and only the group tells which one is meant (jigsaws:
Zhang et al., Gradient-Induced Co-Saliency Detection, ECCV 2020). `bench/suppression.py` scores any method's maps.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image
from tqdm import tqdm

from gconet.runtime.atomic import cannot_fill, cannot_write
from gconet.runtime.command_line import EXIT_DONE, Parser, positive, run
from gconet.runtime.errors import UsageError
from gconet.train.arguments import seed
from gconet.train.augment import resize_pair
from gconet.train.groups import DataError, LabelledGroup, hold_out, read_groups, read_pictures
from gconet.train.pairs import Example, beside

FOLDERS = ("images", "gts", "others")  # photos, masks of the shared object, masks of the other one
SUFFIXES = (".jpg", ".png", ".png")
MIN_SIDE = 16


def mixed_examples(
    group: LabelledGroup, other: LabelledGroup, count: int, size: int, rng: np.random.Generator
) -> Iterator[tuple[str, Example]]:
    """The first `count` photos of a group, by name, every second one with a photo of `other` beside it.

    Examples are size × size; in the photos left alone the mask of the other object is empty.
    """
    for number, sample in enumerate(group.samples[:count]):
        photo, mask = resize_pair(*read_pictures(sample), size)
        example = Example(photo, mask, Image.new("L", mask.size))
        if number % 2:
            companion = other.samples[number // 2 % len(other.samples)]
            example = beside(example, *resize_pair(*read_pictures(companion), size), rng)
        own, others = (mask.point(lambda grey: 255 * (grey >= 128)) for mask in (example.own, example.other))
        yield sample.photo.stem, Example(example.photo, own, others)


def main(arguments: Sequence[str]) -> int:
    """Compose mixed groups; errors as raised by the functions called here, as UsageError."""
    parser = Parser("mixed_groups.py", "Compose groups of photos in which another group's object is in view too.")
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and gts/")
    parser.add_argument(
        "--groups", nargs="+", metavar="GROUP", help="two or more, each mixed with the next (default: all)"
    )
    parser.add_argument("--photos", type=positive, default=6, help="of each group, at most (default: %(default)s)")
    parser.add_argument("--size", type=_side, default=320, help="side of the pictures in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=0, help="of what is mixed where (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="new folder for images/, gts/ and others/")
    options = parser.parse_args(arguments)
    if options.out.exists():
        raise UsageError(f"{options.out} exists already: choose another --out")
    try:
        groups = read_groups(options.data)
        if options.groups:
            chosen = {group.name: group for group in hold_out(groups, options.groups)[1]}
            groups = [chosen[name] for name in options.groups]
    except DataError as error:
        raise UsageError(str(error)) from error
    if len({group.name for group in groups}) < len(groups):
        raise UsageError("a group is named twice in --groups: it cannot be mixed with itself, name each once")
    if len(groups) < 2:
        raise UsageError(f"{len(groups)} group cannot be mixed with another: give at least two --groups")
    rng = np.random.default_rng(options.seed)
    folder = options.out.absolute().parent
    with cannot_write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=folder)
    with scratch, cannot_fill(Path(scratch.name), options.out):
        staging = Path(scratch.name, options.out.name)
        for group, other in tqdm(list(pairwise([*groups, groups[0]])), unit="group", disable=None):
            for name, example in mixed_examples(group, other, options.photos, options.size, rng):
                for kind, suffix, picture in zip(FOLDERS, SUFFIXES, example, strict=True):
                    path = staging / kind / group.name / f"{name}{suffix}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    picture.save(path, quality=95)
        staging.rename(options.out)
    print(f"{len(groups)} mixed groups in {options.out}")
    return EXIT_DONE


def _side(text: str) -> int:
    """Argument type: enough pixels for a part of a jigsaw to have some."""
    side = positive(text)
    if side < MIN_SIDE:
        raise argparse.ArgumentTypeError(f"{text} is less than {MIN_SIDE} pixels")
    return side


if __name__ == "__main__":
    sys.exit(run(main))
