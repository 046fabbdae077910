"""The checks of a suite: each kind of item, as the single command judges it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from composecli.commands.check import check_report, judge
from composecli.commands.composition import not_found_finding
from composecli.commands.opened_model import OpenedModel
from composecli.commands.remedies import with_commands
from composecli.commands.requests import CheckRequest
from composecli.commands.results import CheckReport, ContractReport, WeightsReport
from composecli.commands.session import Session
from composecli.commands.suite_items import PlannedItem, in_folder
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.core.suite import ItemKind, Outcome, Suite
from composecli.files.contract_file import read_contract
from composecli.inference import NotFound

OpenedModels = tuple[OpenedModel, ...]
_DIMS = re.compile(r"(?<=\w)\[[^\[\]]*\]")
_SYMBOL = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Answered:
    """What an item found, with the details."""

    outcome: Outcome
    detail: CheckReport | WeightsReport | ContractReport | None = None
    problem: Problem | None = None

    def is_as_expected(self, expected: Outcome) -> bool:
        """Return whether the outcome is the expected one, without warnings that make it fail.

        Models that only a bridge makes compatible are incompatible, too.
        """
        if expected is Outcome.INCOMPATIBLE:
            return self.outcome in (Outcome.INCOMPATIBLE, Outcome.BRIDGEABLE)
        if isinstance(self.detail, CheckReport) and self.detail.fails_on_warnings:
            return False
        return self.outcome is expected


def answer(
    planned: PlannedItem,
    request: CheckRequest,
    suite: Suite,
    session: Session,
    opened: OpenedModels | Problem,
) -> Answered:
    """Return what an item found about its models, or about the first that could not be opened.

    Raises:
        CouldNotAttempt: if a model cannot be read or run, or there is no expected contract.
    """
    try:
        if planned.item.kind is ItemKind.FIT:
            return _fit(request, opened)
        if isinstance(opened, Problem):
            raise CouldNotAttempt(opened)
        if planned.item.kind is ItemKind.CONTRACT:
            return _contract(planned, suite, session, opened[0])
        if planned.item.kind is ItemKind.DIFF:
            return _diff(planned)
        report = check_report(request, session, opened, judge(request, session, opened))
        return Answered(Outcome(report.verdict), report)
    except CouldNotAttempt as failure:
        failure.problem = with_commands(failure.problem, request)
        raise


def _fit(request: CheckRequest, opened: OpenedModels | Problem) -> Answered:
    """Return whether the weights of a file fit the module of its factory."""
    (model,) = request.models
    if not isinstance(opened, Problem):
        return Answered(Outcome.FITS, WeightsReport(model, None, opened[0].facts))
    if opened.rule is not Rule.KEYS_DO_NOT_FIT:
        raise CouldNotAttempt(opened)
    misfit = with_commands(opened, request)
    return Answered(Outcome.MISFIT, WeightsReport(model, misfit))


def _contract(planned: PlannedItem, suite: Suite, session: Session, part: OpenedModel) -> Answered:
    """Return whether the contract of a model is the expected one, whatever its dims are called."""
    expected = _expected_contract(planned, suite)
    stated = session.stated_input(part)
    found = session.infer(part, stated=stated)
    model = session.report(part, found)
    if isinstance(found, NotFound):
        finding = not_found_finding(part.name, part.facts, found, stated=stated is not None)
        return Answered(Outcome.UNKNOWN, ContractReport(model, expected, finding))
    outcome = Outcome.DIFFERENT
    if _with_numbered_dims(str(found.contract)) == _with_numbered_dims(expected):
        outcome = Outcome.SAME
    return Answered(outcome, ContractReport(model, expected))


def _expected_contract(planned: PlannedItem, suite: Suite) -> str:
    """Return the text of the contract that an item expects."""
    item = planned.item
    if item.contract_file is None:
        return item.contract or ""
    path = in_folder(item.contract_file, os.path.dirname(suite.path))
    try:
        return str(read_contract(path))
    except OSError as error:
        title = f"the expected contract could not be read: {error.strerror}"
        raise CouldNotAttempt(Problem(Rule.NO_SUCH_FILE, title, path)) from None


def _with_numbered_dims(text: str) -> str:
    """Return the text of a contract with its free dims numbered in order, and without spaces."""
    numbers = dict[str, str]()

    def number(symbol: re.Match[str]) -> str:
        return numbers.setdefault(symbol[0], f"_{len(numbers)}")

    def rename(dims: re.Match[str]) -> str:
        return _SYMBOL.sub(number, dims[0])

    renamed = _DIMS.sub(rename, text)
    return "".join(renamed.split())


def _diff(planned: PlannedItem) -> Answered:
    """Return how a contract changed. This is where `composecli diff` will be connected."""
    title = "a [[diff]] cannot be run yet"
    raise CouldNotAttempt(Problem(Rule.ITEM_NOT_SUPPORTED, title, planned.name))
