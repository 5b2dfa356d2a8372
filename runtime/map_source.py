"""Where commands that make pictures take maps from: an engine, a kept consensus, or maps written before."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gconet.runtime.command_line import Parser, add_signature_argument, positive
from gconet.runtime.consensus_file import load_consensus
from gconet.runtime.detector import load
from gconet.runtime.errors import PhotoError, UsageError
from gconet.runtime.group_sizes import check_size
from gconet.runtime.large_groups import Progress
from gconet.runtime.paths import kind_of
from gconet.runtime.photos import Group, read_photo
from gconet.runtime.preprocess import FloatArray


def add_source_options(parser: Parser) -> None:
    """PHOTOS, and the options that say how their maps come about."""
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="photos, or folders of photos")
    parser.add_argument("--bundle", default="build/gconet.gconet", help="bundle to run (default: %(default)s)")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--maps", type=Path, metavar="DIR", help="take the maps that `gconet detect --out DIR` wrote "
                        "of the same PHOTOS, instead of running a bundle")  # fmt: skip
    either.add_argument("--consensus", type=Path, metavar="F", help="find what this file keeps in each photo by "
                        "itself, instead of what a group shares; see gconet consensus")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads of the engine (default: the engine's choice)")
    add_signature_argument(parser)
    parser.add_argument("--skip-unreadable", action="store_true", help="leave photos out that cannot be read, and name "
                        "them; else the first one ends the run")  # fmt: skip


def map_files(options: argparse.Namespace, groups: Sequence[Group]) -> list[Path]:
    """The files of `--maps` that belong to the photos; none where an engine makes the maps.

    Raises
    ------
    UsageError
        If one is missing.
    """
    if options.maps is None:
        return []
    paths = [_map_of(options.maps, group, photo) for group in groups for photo in group.photos]
    for path in paths:
        if kind_of(path) != "file":
            raise UsageError(f"no map at {path}: write it, `gconet detect PHOTOS --out {options.maps}`")
    return paths


def group_maps(
    options: argparse.Namespace, groups: Sequence[Group], progress: Progress
) -> Iterator[Iterator[FloatArray]]:
    """The maps of each group one by one, (H, W) float32 in [0, 1] of the photos' sizes.

    Parameters
    ----------
    progress : of large groups, as for `Detector.stream_groups`.

    Raises
    ------
    BundleError, ConsensusError, PhotoError, TargetError, UsageError
        At once, what loading the bundle raises; in a group's turn, what `Detector.detect` does, or if a written map
        cannot be read.
    """
    if options.maps is not None:
        return (map(read_map, [_map_of(options.maps, group, photo) for photo in group.photos]) for group in groups)
    detector = load(options.bundle, options.device, options.threads, require_signature=options.require_signature)
    if options.consensus is not None:
        vector = load_consensus(options.consensus, detector.bundle).vector
        return (detector.segment_stream(group.photos, vector) for group in groups)
    for group in groups:
        check_size(detector, group)
    return detector.stream_groups((group.photos for group in groups), progress)


def read_map(path: Path) -> FloatArray:
    """A map as `gconet detect` writes it: (H, W) float32 in [0, 1].

    Raises
    ------
    PhotoError
        If it cannot be read.
    """
    try:
        return np.asarray(Image.fromarray(read_photo(path)).convert("L"), np.float32) / np.float32(255)
    except PhotoError as error:
        raise PhotoError(f"as a map: {error}") from error


def _map_of(folder: Path, group: Group, photo: Path) -> Path:
    return folder / group.folder / f"{photo.stem}.png"
