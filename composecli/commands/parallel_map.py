"""Threads that ask a worker several questions at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Item = TypeVar("Item")
Result = TypeVar("Result")


class ParallelMap:
    """Applies a function to many items, at most `parallelism` of them at a time.

    The threads live as long as this object: a child process that replaces one that died is started
    by such a thread, and the system ends it when that thread ends.
    """

    def __init__(self, parallelism: int) -> None:
        self._parallelism = parallelism
        self._threads: ThreadPoolExecutor | None = None

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return the result for each item, in order.

        Raises:
            BaseException: the first one that the function raises; items that have not begun are
                then skipped.
        """
        if self._parallelism == 1:
            return [function(item) for item in items]
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(self._parallelism)
        futures = [self._threads.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            self._threads.shutdown(wait=False, cancel_futures=True)
            raise
