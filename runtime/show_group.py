"""What `gconet show` draws of one group, small enough to keep."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gconet.runtime.detector import Detector
from gconet.runtime.group_vectors import subgroup_vectors
from gconet.runtime.photos import Group, read_photo
from gconet.runtime.preprocess import FloatArray, Photo
from gconet.runtime.show_pictures import shrink, shrink_map

LOOKS = 3  # how often `look_at` goes through a group's photos
MARKER = 96  # longer side of a photo as a point of the t-SNE, in pixels


@dataclass(frozen=True)
class ShownPhoto:
    """A photo made small, (h, w, 3), its map (h, w) in [0, 1], and its attention, 14×14 at 224 pixels, of sum 1."""

    path: Path
    picture: Photo
    saliency: FloatArray
    attention: FloatArray


@dataclass(frozen=True)
class GroupPoints:
    """A group among others: its consensus (C,), those of its sub-groups (P, C), and a photo for each of the first."""

    name: str
    whole: FloatArray
    parts: FloatArray
    markers: tuple[Photo, ...]


@dataclass(frozen=True)
class ShownGroup:
    """A group's first photos. Maps and attention are those of the whole group of `count` photos."""

    name: str
    count: int
    photos: tuple[ShownPhoto, ...]
    points: GroupPoints


@dataclass(frozen=True)
class Scope:
    """How much of a group is kept: photos of at most `longest` pixels, and the photos of a sub-group."""

    photos: int
    longest: int
    subgroup: int


def group_name(group: Group) -> str:
    """How a group is called in pictures: by its folder."""
    if group.folder != Path():
        return group.folder.as_posix()
    return group.photos[0].resolve().parent.name or "photos"


def look_at(
    detector: Detector, group: Group, scope: Scope, progress: Callable[[int], object] = lambda _: None
) -> ShownGroup:
    """Look at a group. Photos are read one by one, and only small pictures of the first ones are kept.

    Parameters
    ----------
    progress : called with the number of photos done since the last call, three times for each.

    Raises
    ------
    BundleError
        If the bundle lacks the graph for the consensus: it is old, or of a TensorRT plan.
    PhotoError, UsageError, TargetError
        As for `Detector.detect`.
    """
    whole, attention = detector.consensus_and_attention(group.photos)
    progress(len(group.photos))
    maps = itertools.islice(detector.stream(group.photos), scope.photos)
    shown = []
    for index, (path, saliency) in enumerate(zip(group.photos, maps, strict=False)):
        picture = shrink(read_photo(path), scope.longest)
        height, width = picture.shape[:2]
        shown.append(ShownPhoto(path, picture, shrink_map(saliency, height, width), attention[index]))
    progress(len(group.photos))
    points = look_at_points(detector, group, scope, whole, progress)
    return ShownGroup(group_name(group), len(group.photos), tuple(shown), points)


def look_at_points(
    detector: Detector,
    group: Group,
    scope: Scope,
    whole: FloatArray | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> GroupPoints:
    """Only the consensus of a group, unless it is `whole`, and of its sub-groups; errors as for `look_at`."""
    if whole is None:
        whole = detector.consensus(group.photos)
        progress(len(group.photos))
    parts = subgroup_vectors(detector, group.photos, scope.subgroup, progress)
    first = group.photos[:: scope.subgroup][: scope.photos]
    return GroupPoints(group_name(group), whole, parts, tuple(shrink(read_photo(path), MARKER) for path in first))
