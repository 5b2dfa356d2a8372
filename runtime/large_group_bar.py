"""How far a large group is: it is done in blocks, in two passes of many seconds each."""

from __future__ import annotations

from typing import Any, Self

from tqdm import tqdm


class LargeGroupBar:
    """A bar of its own for each pass over a group that is done in blocks, with the time left."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._stage, self._done = "", 0  # a bar that is not shown knows neither

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` photos are through this stage."""
        if self._bar is None or self._stage != stage:
            self.__exit__()
            self._stage, self._done = stage, 0
            self._bar = tqdm(desc=stage, total=total, unit="photo", position=1, leave=False, disable=None)
        self._bar.update(done - self._done)
        self._done = done
        if done == total:
            self.__exit__()
            self._bar = None
