"""Work ahead: in order, one ahead and no more, errors in their turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from gconet.runtime.lookahead import ahead


def test_results_come_in_order_also_through_several_stages() -> None:
    assert list(ahead(str, ahead(lambda n: n * n, range(5)))) == ["0", "1", "4", "9", "16"]
    assert list(ahead(str, [])) == []


def test_the_next_item_is_worked_on_while_the_last_is_used_and_no_further() -> None:
    started = [threading.Event() for _ in range(4)]

    def work(n: int) -> int:
        started[n].set()
        return n

    results = ahead(work, range(4))
    assert next(results) == 0
    assert started[1].wait(10)  # nobody has asked for it
    assert not started[2].is_set()
    results.close()  # type: ignore[attr-defined]
    assert not started[2].is_set()


@pytest.mark.parametrize("stages", [1, 2])
def test_an_error_waits_for_the_results_before_it(stages: int) -> None:
    def work(n: int) -> int:
        if n == 2:
            raise ValueError(f"bad {n}")
        return n

    results: Iterator[int] = ahead(work, range(5))
    for _ in range(stages - 1):
        results = ahead(lambda n: n, results)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="bad 2"):
        next(results)


def test_an_error_of_the_source_waits_too() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("source")

    results = ahead(str, source())
    assert next(results) == "1"
    with pytest.raises(KeyError, match="source"):
        next(results)
