"""The parallel map: order, limits and failures."""

from __future__ import annotations

import threading

import pytest

from composecli.commands.parallel_map import ParallelMap


@pytest.mark.parametrize("parallelism", [1, 2, 5])
def test_results_have_the_order_of_the_items(parallelism: int) -> None:
    assert ParallelMap(parallelism).map(lambda item: item * 2, range(20)) == list(range(0, 40, 2))
    assert ParallelMap(parallelism).map(str, []) == []


def test_as_many_run_at_a_time_as_are_allowed() -> None:
    barrier = threading.Barrier(3, timeout=10)
    assert len(ParallelMap(3).map(lambda _: barrier.wait(), range(6))) == 6


def test_one_at_a_time_runs_in_the_calling_thread() -> None:
    names = ParallelMap(1).map(lambda _: threading.current_thread().name, range(2))
    assert names == [threading.current_thread().name] * 2


def test_threads_outlive_a_call() -> None:
    """A child process that a thread started is ended by the system when that thread ends."""
    threads = ParallelMap(2)
    barrier = threading.Barrier(2, timeout=10)

    def identify(_: int) -> int:
        barrier.wait()
        return threading.get_ident()

    assert set(threads.map(identify, range(2))) == set(threads.map(identify, range(2)))


@pytest.mark.parametrize("parallelism", [1, 3])
def test_a_failure_is_raised_and_the_rest_is_skipped(parallelism: int) -> None:
    done = list[int]()

    def work(item: int) -> None:
        if item == 0:
            raise KeyboardInterrupt
        done.append(item)

    with pytest.raises(KeyboardInterrupt):
        ParallelMap(parallelism).map(work, range(10_000))
    assert len(done) < 9_999
