"""Several workers answer as one worker does, and requests go to those that are free."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import nn

from composecli.commands.check import check
from composecli.commands.requests import CheckRequest
from composecli.commands.results import CheckReport
from composecli.core.blueprint import Mode, single_model
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.observations import Accepted
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.core.rules import Rule
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.child import SubprocessWorker
from composecli.workers.pool import MAX_WORKERS, MODELS_PER_WORKER, WorkerPool, pool_size
from composecli.workers.protocol import (
    DescribeRequest,
    OpenRequest,
    ProbeRequest,
    R,
    Request,
    SandboxRequest,
    Training,
    Worker,
)
from tests.models import Shelf, Table, TwoOutputs, encoder

CALL = Call((Argument(TensorSpec("float32", (2, 10))),))


@contextmanager
def closing(worker: Worker) -> Iterator[Worker]:
    try:
        yield worker
    finally:
        worker.close()


def save_models(shelf: Shelf) -> tuple[str, ...]:
    linear = [shelf.save(f"to_10_{width}", nn.Linear(width, 10)) for width in range(8, 12)]
    others = [
        ("encoder", encoder()),
        ("two_outputs", TwoOutputs()),
        ("relu", nn.ReLU()),
        ("indexed", Table()),
    ]
    return (*linear, *(shelf.save(name, module) for name, module in others))


def check_pairs(worker: Worker, models: tuple[str, ...]) -> CheckReport:
    with closing(worker):
        return check(CheckRequest(models, Mode.PAIRS), worker)


def open_request(path: str) -> OpenRequest:
    return OpenRequest(
        FileReference(path), ModelKind.TORCHSCRIPT, "cpu", Training.SAVED, trusted=False, key=None
    )


def test_several_workers_judge_pairs_as_one_worker_does(shelf: Shelf) -> None:
    models = save_models(shelf)
    one = check_pairs(SubprocessWorker(30), models)
    several = check_pairs(WorkerPool(lambda: SubprocessWorker(30), 3), models)
    assert several.models == one.models
    assert several.seams == one.seams


class _Slow(InProcessWorker):
    """Counts the workers that are busy at the same time, and records its requests."""

    busy = 0
    max_busy = 0
    lock = threading.Lock()

    def __init__(self) -> None:
        super().__init__()
        self.opened = list[str]()
        self.sandboxes = list[SandboxRequest]()

    def ask(self, request: Request[R]) -> R:
        if isinstance(request, SandboxRequest):
            self.sandboxes.append(request)
        if isinstance(request, OpenRequest):
            self.opened.append(request.reference.name)
        if isinstance(request, ProbeRequest):
            self._be_busy()
        return super().ask(request)

    def _be_busy(self) -> None:
        kind = type(self)
        with self.lock:
            kind.busy += 1
            kind.max_busy = max(kind.max_busy, kind.busy)
        time.sleep(0.01)
        with self.lock:
            kind.busy -= 1


def test_all_workers_are_busy_and_open_only_the_models_they_need(shelf: Shelf) -> None:
    workers = list[_Slow]()

    def start() -> _Slow:
        workers.append(_Slow())
        return workers[-1]

    _Slow.max_busy = 0
    models = save_models(shelf)
    check_pairs(WorkerPool(start, 2), models)
    first, second = workers
    assert _Slow.max_busy == 2
    assert len(first.opened) == len(models)
    assert 0 < len(second.opened) == len(set(second.opened))
    limits = [request.memory for worker in workers for request in worker.sandboxes]
    assert limits == [first.sandboxes[0].memory] * 2


def test_replies_use_the_numbers_of_the_first_worker(shelf: Shelf) -> None:
    with closing(WorkerPool(InProcessWorker, 2)) as pool:
        assert isinstance(pool, WorkerPool)
        for path in (shelf.save("linear", nn.Linear(10, 5)), shelf.save("indexed", Table())):
            pool.ask(open_request(path))
        # The second worker opens the second model only, and calls it 0.
        with pool.reserve_first():
            observation = pool.ask(ProbeRequest(single_model(1), CALL))
            assert isinstance(observation, Accepted)
            assert {read.model for read in observation.read} == {1}
            assert pool.ask(DescribeRequest(1, None)).rows
        assert isinstance(pool.ask(ProbeRequest(single_model(0), CALL)), Accepted)


def test_the_workers_share_the_memory_limit() -> None:
    first = _Slow()
    pool = WorkerPool(lambda: first, 2)
    pool.ask(SandboxRequest((), (), 1000, 30.0, files=True))
    assert first.sandboxes[0].memory == 500


def test_one_failure_ends_the_command(shelf: Shelf) -> None:
    class Failing(InProcessWorker):
        def ask(self, request: Request[R]) -> R:
            if isinstance(request, ProbeRequest):
                title = "the worker took longer than 1 s and was stopped"
                raise CouldNotAttempt(Problem(Rule.WORKER_TIMED_OUT, title))
            return super().ask(request)

    with pytest.raises(CouldNotAttempt, match="longer"):
        check_pairs(WorkerPool(Failing, 2), save_models(shelf))


class _Dying(SubprocessWorker):
    """Its child is killed once, in the middle of the work."""

    def __init__(self) -> None:
        super().__init__(30)
        self.probes = 0

    def ask(self, request: Request[R]) -> R:
        if isinstance(request, ProbeRequest):
            self.probes += 1
            if self.probes == 20:
                self._process.kill()
        return super().ask(request)


def test_a_child_that_dies_is_replaced_for_all_later_requests(shelf: Shelf) -> None:
    """The new child also survives if the thread that started it has no more work for a while."""
    workers = list[_Dying]()

    def start() -> _Dying:
        workers.append(_Dying())
        return workers[-1]

    models = save_models(shelf)
    report = check_pairs(WorkerPool(start, 2), models)
    contracts = [model.contract for model in report.models if model.contract is not None]
    assert len(contracts) >= len(models) - 2
    assert all(worker.probes > 21 for worker in workers)
    assert len(report.seams) == len(models) * (len(models) - 1)


@pytest.mark.parametrize("count", [0, 2, MODELS_PER_WORKER, 2 * MODELS_PER_WORKER, 1000])
def test_few_models_get_one_worker(count: int) -> None:
    assert 1 <= pool_size(count) <= max(1, min(MAX_WORKERS, count // MODELS_PER_WORKER))
