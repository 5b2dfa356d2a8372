"""Ctrl-C in a long run: finish the step, save, leave."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interruption:
    """While active, the first SIGINT or SIGTERM sets `requested`; a second SIGINT interrupts at once, unsaved."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interruption:
        self._earlier = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @staticmethod
    def leave_to_the_parent(worker: int) -> None:  # noqa: ARG004 (what DataLoader passes)
        """Ignore both in a worker: Ctrl-C and job schedulers signal all, and the run still wants its next step."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (signal's signature)
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
