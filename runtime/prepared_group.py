"""Photos of a group as a caller gives them, on their way into an engine, and maps on their way out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import UsageError
from gconet.runtime.large_groups import Progress, input_blocks, stream_maps
from gconet.runtime.photos import as_array
from gconet.runtime.preprocess import FloatArray, Photo, resize_map
from gconet.runtime.session import Session

LOG = logging.getLogger(__name__)
Photos = Sequence[str | os.PathLike[str] | Photo]


class PreparedGroup(NamedTuple):
    """A group on its way: network input or output (N, channels, S, S), and height and width of its photos.

    A group that is done in blocks has no values, and its shapes are known when its photos have been read.
    """

    photos: Photos
    values: FloatArray | None
    shapes: list[tuple[int, int]]


def check_list(photos: Photos) -> None:
    """Raise UsageError for a path in place of a list of them."""
    if isinstance(photos, str | os.PathLike):
        raise UsageError(f"a group is a list of photos, got the one path {photos}")


def arrays(photos: Photos, shapes: list[tuple[int, int]]) -> Iterator[Photo]:
    """Read photos one by one; their heights and widths are put into `shapes`."""
    for index, photo in enumerate(photos):
        array = as_array(photo, index)
        shapes.append((array.shape[0], array.shape[1]))
        yield array


def infer(session: Session, group: PreparedGroup) -> PreparedGroup:
    """Run a group that is done in one call; one that is done in blocks stays as it is."""
    if group.values is None:
        return group
    start = time.perf_counter()
    maps = session.infer({"images": group.values})["maps"]
    LOG.info("group of %d: computed in %.0f ms", len(maps), 1e3 * (time.perf_counter() - start))
    return group._replace(values=maps)


def finish(bundle: Bundle, session: Session, group: PreparedGroup, progress: Progress) -> Iterator[FloatArray]:
    """Maps of a group that `infer` has seen, each at its photo's size; those done in blocks are computed on the way."""
    shapes = group.shapes
    maps: Iterable[FloatArray]
    if group.values is None:
        manifest, count = bundle.manifest, len(group.photos)
        LOG.info("group of %d: done in blocks", count)
        inputs = input_blocks(arrays(group.photos, shapes), count, manifest.preprocessing)
        maps = stream_maps(session, manifest, inputs, count, progress)
    else:
        maps = group.values[:, 0]
    return (resize_map(saliency, *shapes[index]) for index, saliency in enumerate(maps))
