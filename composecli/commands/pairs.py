"""Models against each other: judge every ordered pair as a chain of two.

A model that cannot be read or run does not end the command: its pairs are unknown, and say why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import permutations
from typing import TypeVar

from composecli.commands.composition import InferenceResult, at_own_rank
from composecli.commands.opened_model import OpenedModel
from composecli.commands.portability import with_device_notes
from composecli.commands.requests import CheckRequest
from composecli.commands.resolve import Target, identify
from composecli.commands.results import CheckReport, ModelReport, SeamReport
from composecli.commands.seam_report import seam_report
from composecli.commands.sequential import check_sequential
from composecli.commands.session import Session
from composecli.core.blueprint import Mode
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.findings import Finding, Side
from composecli.core.rules import Rule

Item = TypeVar("Item")
# What is known of the model with this number, or why nothing is.
Outcome = tuple[int, Item | Problem]


@dataclass
class _Models:
    """The models of the command, by number. Each has a contract in the end, or a problem."""

    names: tuple[str, ...]
    targets: dict[int, Target] = field(default_factory=dict)
    parts: dict[int, OpenedModel] = field(default_factory=dict)
    contracts: dict[int, InferenceResult] = field(default_factory=dict)
    problems: dict[int, Problem] = field(default_factory=dict)

    def keep(
        self, results: dict[int, Item], outcomes: Iterable[tuple[int, Item | Problem]]
    ) -> None:
        """Add each outcome to the results, or to the problems."""
        for number, outcome in outcomes:
            if isinstance(outcome, Problem):
                self.problems[number] = outcome
            else:
                results[number] = outcome


def check_pairs(request: CheckRequest, session: Session) -> CheckReport:
    """Judge each ordered pair, in the order of the models. Each contract is inferred once.

    Raises:
        CouldNotAttempt: if no model can be read and run, the models cannot be isolated as required,
            or composecli fails.
    """
    models = _Models(request.models)
    numbers = range(len(models.names))
    identified = (_identify(request, number) for number in numbers)
    models.keep(models.targets, identified)
    session.confine(tuple(models.targets.values()))
    opened = (_open(session, number, target) for number, target in models.targets.items())
    models.keep(models.parts, opened)
    inferred = session.map(partial(_infer, session), list(models.parts.items()))
    models.keep(models.contracts, inferred)
    if not models.contracts:
        raise CouldNotAttempt(models.problems[0])
    seams = _judge_all(request, session, models)
    parts = tuple(models.parts.values())
    reports = [_model_report(session, models, number) for number in numbers]
    return CheckReport(
        request.mode,
        request.options.device,
        request.strict,
        tuple(reports),
        with_device_notes(seams, parts, session.options),
        example=None,
        result=None,
        isolation=session.sandbox,
        fail_on=request.fail_on,
    )


def _identify(request: CheckRequest, number: int) -> Outcome[Target]:
    """Return the file of a model, or why it must not or cannot be loaded."""
    options = request.options
    try:
        target = identify(request.models[number], options)
    except CouldNotAttempt as failure:
        return number, _problem_of_model(failure)
    return number, target


def _open(session: Session, number: int, target: Target) -> Outcome[OpenedModel]:
    """Return the opened model, or why it cannot be opened."""
    try:
        return number, session.open(target)
    except CouldNotAttempt as failure:
        return number, _problem_of_model(failure)


def _infer(session: Session, item: tuple[int, OpenedModel]) -> Outcome[InferenceResult]:
    """Return the contract of a model, or why it cannot be run."""
    number, part = item
    try:
        return number, at_own_rank(session.infer(part))
    except CouldNotAttempt as failure:
        return number, _problem_of_model(failure)


def _problem_of_model(failure: CouldNotAttempt) -> Problem:
    """Return the problem of one model; a bug of composecli ends the command."""
    if failure.problem.rule is Rule.A_BUG_OF_OURS:
        raise failure
    return failure.problem


def _model_report(session: Session, models: _Models, number: int) -> ModelReport:
    """Return the contract of a model, or its problem as notes."""
    problem = models.problems.get(number)
    if problem is None:
        return session.report(models.parts[number], models.contracts[number])
    kind = "not read"
    if number in models.targets:
        kind = str(models.targets[number].kind)
    notes = (f"{problem.code}: {problem.title}", *problem.notes)
    return ModelReport(models.names[number], kind, None, 0, notes)


def _judge_all(request: CheckRequest, session: Session, models: _Models) -> tuple[SeamReport, ...]:
    """Return the report of each pair."""
    pairs = list(permutations(range(len(models.names)), 2))

    def judge(number: int) -> SeamReport:
        if number % len(models.names) == 0:
            session.progress(f"checking pairs: {number} of {len(pairs)}")
        return _judge_pair(request, session, models, pairs[number])

    return tuple(session.map(judge, range(len(pairs))))


def _judge_pair(
    request: CheckRequest, session: Session, models: _Models, pair: tuple[int, int]
) -> SeamReport:
    """Return the report of one pair; a problem of either model, or of the pair, leaves it unknown.

    Both models have a contract, or the problem of the first one that has none is the finding.
    """
    producer, consumer = (models.names[number] for number in pair)
    for number in pair:
        if number in models.problems:
            finding = _finding(models.problems[number], models.names[number])
            return seam_report(producer, consumer, (), (finding,))
    parts = tuple(models.parts[number] for number in pair)
    chain = replace(request, models=(producer, consumer), mode=Mode.SEQUENTIAL)
    try:
        (seam,) = check_sequential(chain, session, parts).seams
    except CouldNotAttempt as failure:
        finding = _finding(_problem_of_model(failure), consumer)
        return seam_report(producer, consumer, (), (finding,))
    return seam


def _finding(problem: Problem, model: str) -> Finding:
    """Return a problem as a finding about a seam."""
    return Finding(problem.rule, problem.title, (Side(model, ""),), notes=problem.notes)
