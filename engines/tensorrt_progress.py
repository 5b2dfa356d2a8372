"""A progress bar for TensorRT's builder, and the way to end a build early."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

from tqdm import tqdm


class Phases:
    """The nested phases of a build, and how far through its outermost one it is.

    TensorRT counts the steps of each phase; a phase inside another one is a part of the outer one's present step.
    """

    def __init__(self) -> None:
        self._running: dict[str, tuple[int, int]] = {}  # steps of each phase: done, all; the outermost first

    def start(self, name: str, steps: int) -> None:
        """A phase begins inside those that are running."""
        self._running[name] = (0, max(steps, 1))

    def step(self, name: str, index: int) -> None:
        """A phase's step, counted from 0, is done."""
        if name in self._running:
            self._running[name] = (index + 1, self._running[name][1])

    def finish(self, name: str) -> None:
        """A phase ends."""
        self._running.pop(name, None)

    def progress(self) -> float:
        """Between 0 and 1."""
        share = 0.0
        for done, steps in reversed(self._running.values()):
            share = min((done + share) / steps, 1.0)
        return share

    def innermost(self) -> str:
        """Name of the phase that began last and still runs; "" if none does."""
        return next(reversed(self._running), "")


class ProgressBar:
    """Shows a build on the terminal, where a build of 0 to 1 goes; `monitor` is for the builder's configuration."""

    def __init__(self, trt: ModuleType, bar: tqdm[Any]) -> None:
        self._bar, self._phases = bar, Phases()
        self._lock = threading.Lock()  # TensorRT tells its progress from threads of its own
        self._stopped = threading.Event()
        outer = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
                with outer._lock:
                    outer._phases.start(phase_name, num_steps)
                    outer._show()

            def phase_finish(self, phase_name: str) -> None:
                with outer._lock:
                    outer._phases.finish(phase_name)

            def step_complete(self, phase_name: str, step: int) -> bool:
                with outer._lock:
                    outer._phases.step(phase_name, step)
                    outer._show()
                return not outer._stopped.is_set()  # False ends the build

        self.monitor = Monitor()

    def stop(self) -> None:
        """End the build at its next step."""
        self._stopped.set()

    def _show(self) -> None:
        self._bar.set_description(self._phases.innermost().lower(), refresh=False)
        self._bar.update(max(self._phases.progress() - self._bar.n, 0.0))  # a bar never goes back
