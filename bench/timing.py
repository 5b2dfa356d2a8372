"""Interleaved timing: what is compared is run in turns, so that a noisy machine disturbs everything alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WARM_UP_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """Raw samples of one contender, in milliseconds, in the order they were taken."""

    samples_ms: Sequence[float]

    def percentile(self, q: float) -> float:
        """The q-th percentile in milliseconds, q in [0, 100]."""
        return float(np.percentile(self.samples_ms, q))


def time_interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, progress: Callable[[], object]
) -> dict[str, Timing]:
    """Call every contender once a round, after warm-up rounds that are not counted.

    Parameters
    ----------
    rounds : samples per contender, at least 1.
    progress : called after every round, warm-up included.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(WARM_UP_ROUNDS + rounds):
        for name, call in contenders.items():
            start = time.perf_counter_ns()
            call()
            elapsed = (time.perf_counter_ns() - start) / 1e6
            if index >= WARM_UP_ROUNDS:
                samples[name].append(elapsed)
        progress()
    return {name: Timing(values) for name, values in samples.items()}
