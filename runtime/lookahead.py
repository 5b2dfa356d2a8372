"""Doing the next thing while the last one is being used: reading beside compute, compute beside writing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function` of each item, in order; a thread works on the next one meanwhile, and on no more than that.

    An exception, of `function` or of `items`, is raised in its turn: after all results before it.
    """
    source, waiting = iter(items), list[Future[Result]]()
    thread = ThreadPoolExecutor(1)
    try:
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception:
                yield from (future.result() for future in waiting)
                raise
            waiting.append(thread.submit(function, item))
            if len(waiting) > 1:
                yield waiting.pop(0).result()
        yield from (future.result() for future in waiting)
    finally:
        thread.shutdown(cancel_futures=True)


def in_parallel(calls: Iterable[Callable[[], Result]], workers: int) -> Iterator[Result]:
    """Yield the result of each call, in order; `workers` threads work on calls, and few more wait for their turn.

    An exception is raised in its turn; calls that have not begun are dropped then, those that have are waited for.
    """
    waiting = deque[Future[Result]]()
    threads = ThreadPoolExecutor(workers)
    try:
        for call in calls:
            waiting.append(threads.submit(call))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
