"""What a run of many workers leaves beside its maps: `run.json`, which groups are done, by whom, and which are not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gconet.runtime.command_line import write_json
from gconet.runtime.errors import UsageError
from gconet.runtime.paths import kind_of
from gconet.runtime.photos import Group

SCHEMA = 1
NAME = "run.json"  # maps are .png, so no photo's map has this name
UPDATE_SECONDS = 10.0


@dataclass
class GroupRecord:
    """What became of one group.

    Attributes
    ----------
    folder : of its maps, relative to the output folder; "." is that folder itself.
    photos : how many.
    status : "waiting", "skipped" (its maps were there), "done", "failed", or "stopped" (the run ended before it did).
    seconds : that its worker took, reading and writing included.
    worker : "machine:process".
    message : why it failed, or "".
    """

    folder: str
    photos: int
    status: str = "waiting"
    seconds: float = 0.0
    worker: str = ""
    message: str = ""


class RunManifest:
    """Keeps `run.json` up to date, every version of it whole.

    Parameters
    ----------
    out : output folder.
    about : what the document says besides of the run: the bundle, workers, versions.
    groups, planned : all groups, and those that are not skipped, whose records come first.

    Raises
    ------
    UsageError
        If a group has `run.json` for its folder.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], groups: Sequence[Group], planned: Sequence[Group]) -> None:
        self.path = out / NAME
        if kind_of(self.path) == "folder" or any(group.folder.parts[:1] == (NAME,) for group in groups):
            raise UsageError(f"{self.path} is where a run is described, no folder of maps: rename the group {NAME}")
        chosen = {id(group) for group in planned}
        skipped = [group for group in groups if id(group) not in chosen]
        self.records = [GroupRecord(group.folder.as_posix(), len(group.photos)) for group in planned]
        self._skipped = [GroupRecord(group.folder.as_posix(), len(group.photos), "skipped") for group in skipped]
        self._about = dict(about)
        self._started, self._clock, self._written = datetime.now(UTC), time.perf_counter(), float("-inf")

    def describe(self, **about: Any) -> None:
        """Add what is known only once the run has begun."""
        self._about |= about

    def note(self, index: int, status: str, message: str, seconds: float, worker: str) -> None:
        """Record what became of planned group `index`, and write that within ten seconds of the last time."""
        record = self.records[index]
        record.status, record.message, record.seconds, record.worker = status, message, round(seconds, 3), worker
        if time.perf_counter() - self._written > UPDATE_SECONDS:
            self.write("running")

    def write(self, status: str) -> None:
        """Write the document; `status` is "running", "complete", "incomplete" or "interrupted".

        Raises
        ------
        UsageError
            If it cannot be written.
        """
        records = [*self.records, *self._skipped]
        document = {
            "schema": SCHEMA,
            "status": status,
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._clock, 3),
            **self._about,
            "counts": {name: sum(record.status == name for record in records) for name in _names(records)},
            "groups": [asdict(record) for record in records],
        }
        write_json(self.path, document)
        self._written = time.perf_counter()


def _names(records: Sequence[GroupRecord]) -> list[str]:
    return sorted({record.status for record in records})
