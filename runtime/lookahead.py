"""Doing the next thing while the last one is being used: reading beside compute, compute beside writing."""

from __future__ import annotations

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
