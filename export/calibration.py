"""Groups of real photos on which the ranges of activations are measured."""

from __future__ import annotations

from pathlib import Path

from gconet.bench.photo_groups import EXAMPLES
from gconet.runtime.photos import find_groups, read_photo
from gconet.runtime.preprocess import FloatArray, Preprocessing, to_input

MAX_GROUPS = 24
MAX_PHOTOS = 8  # of a group; more of one kind teach little that is new


def read_calibration(folder: Path | None, preprocessing: Preprocessing) -> list[FloatArray]:
    """Network inputs (N, 3, S, S) of the groups below a folder, or of the example photos.

    Of many groups, `MAX_GROUPS` spread over the sorted list are taken, and of a group its first `MAX_PHOTOS`.

    Raises
    ------
    PhotoError
        If the folder is missing, or holds no photo, or one of those taken cannot be read.
    """
    groups = find_groups([EXAMPLES if folder is None else folder])
    count = min(len(groups), MAX_GROUPS)
    spread = [groups[index * len(groups) // count] for index in range(count)]
    return [to_input([read_photo(path) for path in group.photos[:MAX_PHOTOS]], preprocessing) for group in spread]
