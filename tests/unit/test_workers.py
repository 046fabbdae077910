"""Several workers as one: the same answers, from whichever is free."""

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
from composecli.core.observations import Accepted, Observation
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.core.rules import Rule
from composecli.runtime.in_process import InProcessWorker
from composecli.workers.child import SubprocessWorker
from composecli.workers.pool import MODELS_TO_EACH, MOST, WorkerPool, pool_size
from composecli.workers.protocol import (
    DescribeRequest,
    Opened,
    OpenRequest,
    ProbeRequest,
    Sandbox,
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


def paths(shelf: Shelf) -> tuple[str, ...]:
    linear = [shelf.save(f"to_10_{width}", nn.Linear(width, 10)) for width in range(8, 12)]
    others = [
        ("encoder", encoder()),
        ("two_outputs", TwoOutputs()),
        ("relu", nn.ReLU()),
        ("indexed", Table()),
    ]
    return (*linear, *(shelf.save(name, module) for name, module in others))


def judged(worker: Worker, models: tuple[str, ...]) -> CheckReport:
    with closing(worker):
        return check(CheckRequest(models, Mode.PAIRS), worker)


def test_pairs_by_several_workers_are_judged_as_by_one(shelf: Shelf) -> None:
    models = paths(shelf)
    one, several = (
        judged(SubprocessWorker(30), models),
        judged(WorkerPool(lambda: SubprocessWorker(30), 3), models),
    )
    assert several.models == one.models
    assert several.seams == one.seams


class _Slow(InProcessWorker):
    """Says who else was at work at the same time, and opens each model under numbers of its own."""

    at_work = 0
    most = 0
    lock = threading.Lock()

    def __init__(self) -> None:
        super().__init__()
        self.opened = list[str]()
        self.confined = list[SandboxRequest]()

    def sandbox(self, request: SandboxRequest) -> Sandbox:
        self.confined.append(request)
        return super().sandbox(request)

    def open(self, request: OpenRequest) -> Opened:
        self.opened.append(request.reference.name)
        return super().open(request)

    def probe(self, request: ProbeRequest) -> Observation:
        kind = type(self)
        with self.lock:
            kind.at_work += 1
            kind.most = max(kind.most, kind.at_work)
        time.sleep(0.01)
        with self.lock:
            kind.at_work -= 1
        return super().probe(request)


def opened(path: str) -> OpenRequest:
    return OpenRequest(
        FileReference(path), ModelKind.TORCHSCRIPT, "cpu", Training.SAVED, trusted=False, key=None
    )


def test_all_of_them_are_at_work_and_open_what_they_are_asked_about(shelf: Shelf) -> None:
    made = list[_Slow]()

    def start() -> _Slow:
        made.append(_Slow())
        return made[-1]

    _Slow.most = 0
    judged(WorkerPool(start, 2), paths(shelf))
    assert _Slow.most == 2
    assert len(made[0].opened) == len(paths(shelf))
    assert 0 < len(made[1].opened) == len(set(made[1].opened))
    assert [request.memory for worker in made for request in worker.confined] == [
        made[0].confined[0].memory
    ] * 2


def test_numbers_are_those_of_the_first_whoever_answers(shelf: Shelf) -> None:
    with closing(WorkerPool(InProcessWorker, 2)) as workers:
        assert isinstance(workers, WorkerPool)
        for path in (shelf.save("linear", nn.Linear(10, 5)), shelf.save("indexed", Table())):
            workers.open(opened(path))
        with workers._first():
            seen = workers.probe(
                ProbeRequest(single_model(1), Call((Argument(TensorSpec("float32", (2, 10))),)))
            )
            assert isinstance(seen, Accepted)
            assert {read.model for read in seen.read} == {1}
            assert workers.describe(DescribeRequest(1, None)).rows
        assert isinstance(workers.probe(ProbeRequest(single_model(0), CALL)), Accepted)


def test_together_they_take_the_memory_of_one(shelf: Shelf) -> None:
    first = _Slow()
    WorkerPool(lambda: first, 2).sandbox(SandboxRequest((), (), 1000, 30.0, files=True))
    assert first.confined[0].memory == 500


def test_a_failure_ends_the_rest(shelf: Shelf) -> None:
    class Failing(InProcessWorker):
        def probe(self, request: ProbeRequest) -> Observation:
            raise CouldNotAttempt(
                Problem(Rule.WORKER_TIMED_OUT, "the worker took longer than 1 s and was ended")
            )

    with pytest.raises(CouldNotAttempt, match="longer"):
        judged(WorkerPool(Failing, 2), paths(shelf))


class _Dying(SubprocessWorker):
    """Its child is killed in the midst of the work, once."""

    def __init__(self) -> None:
        super().__init__(30)
        self.asked = 0

    def probe(self, request: ProbeRequest) -> Observation:
        self.asked += 1
        if self.asked == 20:
            self._process.kill()
        return super().probe(request)


def test_a_child_that_dies_is_replaced_for_all_that_follows(shelf: Shelf) -> None:
    """Also where a thread started it that has nothing more to do for a while."""
    made = list[_Dying]()

    def start() -> _Dying:
        made.append(_Dying())
        return made[-1]

    models = paths(shelf)
    report = judged(WorkerPool(start, 2), models)
    assert len([model for model in report.models if model.contract is not None]) >= len(models) - 2
    assert all(worker.asked > 21 for worker in made)
    assert len(report.seams) == len(models) * (len(models) - 1)


def test_a_child_that_was_closed_stays_closed(shelf: Shelf) -> None:
    worker = SubprocessWorker(30)
    worker.open(opened(shelf.save("linear", nn.Linear(10, 5))))
    worker.close()
    with pytest.raises((CouldNotAttempt, OSError)):
        worker.probe(ProbeRequest(single_model(0), CALL))
    assert worker._process.poll() is not None


@pytest.mark.parametrize("count", [0, 2, MODELS_TO_EACH, 2 * MODELS_TO_EACH, 1000])
def test_few_models_are_worth_one(count: int) -> None:
    assert 1 <= pool_size(count) <= max(1, min(MOST, count // MODELS_TO_EACH))
