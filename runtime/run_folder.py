"""A hidden folder in the output folder for as long as a run of many workers lasts: what holds them together."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from gconet.runtime.atomic import cannot_write
from gconet.runtime.errors import TargetError

Item = TypeVar("Item")
PREFIX, ENDED = ".gconet-run-", ".ended"
MAX_ATTEMPTS = 3  # at one group; what takes its worker down as often would take the next one too


class Stopped(Exception):  # noqa: N818 (no error: what an interrupted run's workers end with)
    """The run is over: its folder is gone."""


class RunFolder:
    """Workers go on only while they see it, on whatever machine they are.

    So one look tells a worker that its machine has the storage the maps go to, an interrupted run ends between two
    photos rather than inside a file, and a worker that was cut off writes no more once another run has begun.

    It also counts the attempts at each group, since whoever tries again knows nothing of workers that died.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextlib.contextmanager
    def open(cls, out: Path) -> Iterator[RunFolder]:
        """Begin a run into `out`, made as needed; runs before it end. Raises UsageError if nothing can be written."""
        run = cls(out / f"{PREFIX}{uuid.uuid4().hex}")
        with cannot_write(out):
            out.mkdir(parents=True, exist_ok=True)
            for earlier in out.glob(f"{PREFIX}*"):
                cls(earlier).stop()
            for killed in out.glob(f"{ENDED}{PREFIX}*"):  # while it removed its folder
                shutil.rmtree(killed, ignore_errors=True)
            run.path.mkdir()
        try:
            yield run
        finally:
            run.stop()

    def stop(self) -> None:
        """End the run; workers notice at their next photo."""
        hidden = self.path.with_name(f"{ENDED}{self.path.name}")  # renamed first: workers may be adding to it
        with contextlib.suppress(OSError):
            os.replace(self.path, hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def going_on(self) -> bool:
        """Whether the run goes on, seen from this machine."""
        return self.path.is_dir()

    def check(self, *_progress: object) -> None:
        """Raise Stopped if the run is over; takes the arguments of a large group's progress."""
        if not self.going_on():
            raise Stopped

    def watched(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, for as long as the run goes on."""
        for item in items:
            self.check()
            yield item

    @contextlib.contextmanager
    def attempt(self, index: int) -> Iterator[None]:
        """Work on group `index`; what does not survive the block is counted.

        Raises
        ------
        Stopped
            If the run is over.
        TargetError
            If too many died of it before.
        """
        marks = [self.path / f"{index}.{number}" for number in range(1, MAX_ATTEMPTS + 1)]
        for mark in marks:
            try:
                mark.touch(exist_ok=False)
                break
            except FileExistsError:
                continue
            except FileNotFoundError as error:
                raise Stopped from error
        else:
            raise TargetError(
                f"{MAX_ATTEMPTS} workers died of it, perhaps for lack of memory: try fewer --workers, or split it"
            )
        try:
            yield
        finally:
            for mark in marks:
                with contextlib.suppress(OSError):
                    mark.unlink()
