"""The pipeline on Ray Data: rows of groups in, answers of workers out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gconet.runtime.ray_worker import GroupWorker, Job


class Resources(NamedTuple):
    """How many workers, the CPU threads of each, and whether each has a GPU."""

    workers: int
    threads: int
    gpu: bool


class DataRun:
    """A run of `GroupWorker` over rows, each one task, in their order; Ray replaces workers that die."""

    def __init__(self, job: Job, rows: Sequence[Mapping[str, Any]], resources: Resources) -> None:
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        answers = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map(
            GroupWorker,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=resources.workers, max_tasks_in_flight_per_actor=1),
            num_cpus=resources.threads,
            num_gpus=1 if resources.gpu else None,
        )
        self._answers = iter(answers.iter_rows())

    def next(self) -> Mapping[str, Any] | None:
        """The next answer as soon as there is one, in any order; None at the end. Errors are Ray's."""
        return next(self._answers, None)
