"""The run of a suite: its models opened and inferred once, and its items one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TypeVar

from composecli.commands.opened_model import OpenedModel
from composecli.commands.progress import Progress
from composecli.commands.requests import CheckRequest, Options
from composecli.commands.resolve import Target, identify
from composecli.commands.results import ItemReport, ItemStatus
from composecli.commands.session import Session
from composecli.commands.suite_checks import Answered, answer
from composecli.commands.suite_items import PlannedItem
from composecli.commands.suite_options import item_request
from composecli.core.errors import CouldNotAttempt, Problem, system_problem
from composecli.core.rules import Rule
from composecli.core.suite import ItemKind, Outcome, Suite
from composecli.workers.protocol import Sandbox, Worker

# A model as it is opened: the MODEL argument, and the entry of its checkpoint.
ModelKey = tuple[str, str | None]
Result = TypeVar("Result")


class SuiteRun:
    """The items at work on one worker. `reports` are those of the items that have ended."""

    def __init__(
        self,
        suite: Suite,
        items: tuple[PlannedItem, ...],
        options: Options,
        worker: Worker,
        progress: Progress,
    ) -> None:
        self.reports = dict[int, ItemReport]()
        self._suite = suite
        self._items = items
        self._requests = [item_request(item, options, suite) for item in items]
        # The worker may read the samples of every item.
        inputs = [given for request in self._requests for given in request.options.inputs]
        options = replace(options, inputs=tuple(dict.fromkeys(inputs)))
        self._session = Session(worker, options, progress)
        self._progress = progress
        self._parts = dict[ModelKey, OpenedModel]()
        self._problems = dict[ModelKey, Problem]()
        self._locks = dict[int, Lock]()

    @property
    def isolation(self) -> Sandbox | None:
        """The measures that confined the process of the models; None if none were asked for."""
        return self._session.sandbox

    def attempt(self, numbers: Iterable[int]) -> None:
        """Run the items of these numbers, and keep the report of each.

        Raises:
            CouldNotAttempt: if the models cannot be isolated as required.
            KeyboardInterrupt: if the user ended it; Terminated for SIGTERM.
        """
        chosen = list(numbers)
        for number in chosen:
            problem = self._items[number].problem
            if problem is not None:
                self.reports[number] = _not_attempted(self._items[number], problem)
        runnable = [number for number in chosen if number not in self.reports]
        if not runnable:
            return
        self._open_all([self._requests[number] for number in runnable])

        self._session.map(self._run, runnable)

    def _run(self, number: int) -> None:
        """Run one item, and keep its report."""
        self.reports[number] = self._report(number)

    def _open_all(self, requests: list[CheckRequest]) -> None:
        """Identify each model, confine the worker to their files, and open them."""
        targets = dict[ModelKey, Target]()
        needed = dict[ModelKey, Options]()
        for request in requests:
            for model in request.models:
                needed.setdefault((model, request.options.key), request.options)
        for key, options in needed.items():
            self._progress(f"reading {key[0]}")
            self._keep(targets, key, partial(identify, key[0], options))
        self._session.confine(tuple(targets.values()))
        for key, target in targets.items():
            session = self._session.with_options(needed[key], self._progress)
            self._keep(self._parts, key, partial(session.open, target))

    def _keep(
        self, results: dict[ModelKey, Result], key: ModelKey, find: Callable[[], Result]
    ) -> None:
        """Keep what is found of a model, or the problem of it."""
        try:
            results[key] = find()
        except CouldNotAttempt as failure:
            self._problems[key] = failure.problem
        except OSError as error:
            self._problems[key] = system_problem(error)

    def _report(self, number: int) -> ItemReport:
        """Return the report of one item. Whatever goes wrong in it is its problem."""
        planned = self._items[number]
        try:
            answered = self._answer(planned, self._requests[number], self._progress_of(number))
        except CouldNotAttempt as failure:
            return _not_attempted(planned, failure.problem)
        except OSError as error:
            return _not_attempted(planned, system_problem(error))
        except Exception as error:
            note = f"{type(error).__name__}: {error}"
            problem = Problem(Rule.A_BUG_OF_OURS, "a bug in composecli", None, (note,))
            return _not_attempted(planned, problem)
        return _ended(planned, answered)

    def _progress_of(self, number: int) -> Progress:
        """Return the progress of an item, which names the item first."""

        def show(text: str) -> None:
            self._progress(f"{number + 1} of {len(self._items)}: {text}")

        show(self._items[number].name)
        return show

    def _answer(self, planned: PlannedItem, request: CheckRequest, progress: Progress) -> Answered:
        """Return what an item found."""
        session = self._session.with_options(request.options, progress)
        parts = list[OpenedModel]()
        for model in request.models:
            problem = self._problems.get((model, request.options.key))
            if problem is not None:
                return answer(planned, request, self._suite, session, problem)
            parts.append(self._parts[model, request.options.key])
        if planned.item.kind is not ItemKind.FIT:
            self._infer(session, parts)
        return answer(planned, request, self._suite, session, tuple(parts))

    def _infer(self, session: Session, parts: list[OpenedModel]) -> None:
        """Infer the contract of each model that no item has asked for before."""
        for part in parts:
            if session.options.inputs_of_first and part is parts[0]:
                continue
            # Another item may be at the same model.
            with self._locks.setdefault(part.handle, Lock()):
                session.infer(part)


def _ended(planned: PlannedItem, answered: Answered) -> ItemReport:
    """Return the report of an item that has an answer."""
    item = planned.item
    status = ItemStatus.FAILED
    if answered.outcome is Outcome.UNKNOWN:
        status = ItemStatus.UNKNOWN
    elif answered.is_as_expected(item.expected):
        status = ItemStatus.PASSED
    return ItemReport(
        planned.name,
        item.kind,
        item.line,
        planned.models,
        item.expected,
        answered.outcome,
        status,
        answered.detail,
        answered.problem,
    )


def _not_attempted(planned: PlannedItem, problem: Problem) -> ItemReport:
    """Return the report of an item that could not be attempted."""
    item = planned.item
    return ItemReport(
        planned.name,
        item.kind,
        item.line,
        planned.models,
        item.expected,
        None,
        ItemStatus.UNKNOWN,
        problem=problem,
    )
