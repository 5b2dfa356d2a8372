"""Interleaved timing: turns, warm-up until stationary, drift; on samples made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest

from gconet.bench import timing
from gconet.bench.timing import BRIEF, Timing, WarmUpRule, is_stationary, time_interleaved

RULE = WarmUpRule(12, window=3, tolerance=0.05)


class Clock:
    """Time that passes only when a contender runs; stands in for the module `time`."""

    def __init__(self) -> None:
        self.now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def contender(self, milliseconds: Iterator[float]) -> Callable[[], None]:
        """A call that takes as long as comes next."""

        def call() -> None:
            self.now_ns += round(next(milliseconds) * 1e6)

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(timing, "time", fake)
    return fake


def test_everybody_has_a_turn_each_round_and_nobody_always_follows_the_same_neighbour() -> None:
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}  # type: ignore[misc]
    time_interleaved(contenders, 40, lambda: None)
    rounds = ["".join(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert len(rounds) == BRIEF.at_most + 40
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len(set(rounds)) == 6
    again: list[str] = []
    time_interleaved({name: lambda name=name: again.append(name) for name in "abc"}, 40, lambda: None)  # type: ignore[misc]
    assert again == calls


def test_warm_up_is_kept_but_not_counted(clock: Clock) -> None:
    found = time_interleaved({"a": clock.contender(chain([90.0, 50.0, 20.0], repeat(10.0)))}, 4, lambda: None)["a"]
    assert found.warm_up_ms == [90, 50, 20]
    assert found.samples_ms == [10, 10, 10, 10]
    assert not found.stationary  # three rounds are no two windows


def test_warm_up_ends_when_all_have_settled(clock: Clock) -> None:
    contenders = {
        "steady": clock.contender(repeat(5.0)),
        "slow starter": clock.contender(chain([100.0, 80.0, 60.0, 40.0], repeat(30.0))),
    }
    steps: list[None] = []
    found = time_interleaved(contenders, 2, lambda: steps.append(None), RULE)
    assert len(found["slow starter"].warm_up_ms) == 9  # one of 40 is left in the window before
    assert found["slow starter"].samples_ms == [30, 30]
    assert all(each.stationary for each in found.values())
    assert len(steps) == RULE.at_most + 2  # the progress bar's, whatever was saved


def test_warm_up_is_bounded_and_says_who_did_not_settle(clock: Clock) -> None:
    contenders = {
        "steady": clock.contender(repeat(5.0)),
        "ever slower": clock.contender(1.5**index for index in range(100)),
    }
    found = time_interleaved(contenders, 1, lambda: None, RULE)
    assert {name: (len(each.warm_up_ms), each.stationary) for name, each in found.items()} == {
        "steady": (12, True),
        "ever slower": (12, False),
    }


@pytest.mark.parametrize(
    ("samples", "stationary"),
    [
        ([10.0] * 5, False),  # too few
        ([10.0] * 6, True),
        ([10, 10, 10, 10.4, 10.4, 10.4], True),
        ([10, 10, 10, 10.6, 10.6, 10.6], False),
        ([10, 10, 10, 9.4, 9.4, 9.4], False),
        ([10, 10, 10, 10, 500, 10], True),  # one disturbance is no drift
        ([900, 800, 10, 10, 10, 10, 10, 10], True),  # long ago
    ],
)
def test_stationarity_compares_the_medians_of_two_windows(samples: list[float], stationary: bool) -> None:
    assert is_stationary(samples, RULE) is stationary


def test_percentiles_and_drift_of_known_samples() -> None:
    assert Timing([1.0, 2.0, 9.0]).percentile(50) == 2.0
    assert Timing([1.0, 2.0, 9.0]).drift is None
    assert Timing([10.0, 10.0, 77.0, 1.0, 3.0, 12.0, 11.0, 11.0]).drift == pytest.approx(0.1)


def test_what_comes_before_a_sample_is_not_in_it(clock: Clock) -> None:
    contenders = {name: clock.contender(repeat(1.0)) for name in "ab"}
    called: list[str] = []

    def before(name: str) -> None:
        called.append(name)
        contenders[name]()

    timings = time_interleaved(contenders, 2, lambda: None, WarmUpRule(1), before)
    assert sorted(called) == ["a"] * 3 + ["b"] * 3
    assert all(t.samples_ms == [1.0, 1.0] and t.warm_up_ms == [1.0] for t in timings.values())
