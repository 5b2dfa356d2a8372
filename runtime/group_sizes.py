"""Whether a bundle takes a group of so many photos, before the first is computed."""

from __future__ import annotations

import sys

from gconet.runtime.bundle import Bundle
from gconet.runtime.detector import Detector
from gconet.runtime.errors import UsageError
from gconet.runtime.photos import Group


def check_size(detector: Detector, group: Group) -> None:
    """Raise UsageError, naming the group's folder, if it is too large; note if it is larger than what was verified."""
    try:
        detector.check_count(len(group.photos))
    except UsageError as error:
        raise UsageError(f"{group.photos[0].parent}: {error}") from error
    note_size(detector.bundle, len(group.photos))


def note_size(bundle: Bundle, count: int) -> None:
    """Say so on standard error if a group of `count` photos is larger than what the bundle was verified with."""
    verified = bundle.manifest.max_group
    if count > verified:
        print(f"note: a group of {count} photos; {bundle.folder} was verified up to {verified}", file=sys.stderr)
