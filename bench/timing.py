"""Interleaved timing: what is compared is run in turns, so that a noisy machine disturbs everything alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WARM_UP_ROUNDS = 3


@dataclass(frozen=True)
class WarmUpRule:
    """When a warm-up has lasted long enough: once everybody has had a window of rounds like the one before it.

    Attributes
    ----------
    at_most : rounds after which measuring starts in any case; fewer than two windows settle nothing.
    window : rounds whose median is compared.
    tolerance : largest relative difference of two medians that are called alike.
    """

    at_most: int
    window: int = 3
    tolerance: float = 0.05


BRIEF = WarmUpRule(WARM_UP_ROUNDS)  # enough for caches and lazy compilation, where nobody asks for more


@dataclass(frozen=True)
class Timing:
    """Raw samples of one contender, in milliseconds, in the order they were taken.

    Attributes
    ----------
    samples_ms : what counts.
    warm_up_ms : what came before.
    stationary : whether it settled during its warm-up; False also where that was too short to tell.
    """

    samples_ms: Sequence[float]
    warm_up_ms: Sequence[float] = ()
    stationary: bool = False

    def percentile(self, q: float) -> float:
        """The q-th percentile in milliseconds, q in [0, 100]."""
        return float(np.percentile(self.samples_ms, q))

    @property
    def drift(self) -> float | None:
        """Median of the last quarter of the samples, relative to that of the first: 0.1 is 10 % slower at the end.

        None where there are fewer than four samples.
        """
        window = len(self.samples_ms) // 4
        if not window:
            return None
        return float(np.median(self.samples_ms[-window:]) / np.median(self.samples_ms[:window]) - 1)


def is_stationary(samples_ms: Sequence[float], rule: WarmUpRule) -> bool:
    """Whether the last window's median is that of the window before it, within the rule's tolerance."""
    if len(samples_ms) < 2 * rule.window:
        return False
    last = float(np.median(samples_ms[-rule.window :]))
    before = float(np.median(samples_ms[-2 * rule.window : -rule.window]))
    return abs(last - before) <= rule.tolerance * before


def time_interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    progress: Callable[[], object],
    warm_up: WarmUpRule = BRIEF,
    before: Callable[[str], object] | None = None,
) -> dict[str, Timing]:
    """Call every contender once a round, after warm-up rounds that are not counted.

    The order changes from round to round, the same way in every run: threads of one engine may spin for a moment after
    its answer, and no other should be the one that always pays for it.

    Parameters
    ----------
    rounds : samples per contender, at least 1.
    progress : called after every round, warm-up included; a warm-up that settles early makes up for its rounds.
    warm_up : when to start counting.
    before : called with a contender's name before each of its samples, and not timed.
    """
    shuffled = np.random.default_rng(0)
    names = list(contenders)
    warm: dict[str, list[float]] = {name: [] for name in names}
    samples: dict[str, list[float]] = {name: [] for name in names}

    def run_round(into: Mapping[str, list[float]]) -> None:
        for index in shuffled.permutation(len(names)):
            name = names[index]
            if before:
                before(name)
            start = time.perf_counter_ns()
            contenders[name]()
            into[name].append((time.perf_counter_ns() - start) / 1e6)
        progress()

    settled: set[str] = set()
    for index in range(warm_up.at_most):
        run_round(warm)
        settled |= {name for name in names if is_stationary(warm[name], warm_up)}
        if len(settled) == len(names):
            for _ in range(warm_up.at_most - index - 1):
                progress()
            break
    for _ in range(rounds):
        run_round(samples)
    return {name: Timing(samples[name], warm[name], name in settled) for name in names}


def answer_once(contenders: Mapping[str, Callable[[], object]], name: str) -> None:
    """For `before`: threads of who came before spin on for a tenth of a second, and what is in the caches is theirs."""
    contenders[name]()
