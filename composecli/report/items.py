"""Results as the formats of CI systems know them: items that passed or not, with messages.

Each item is anchored at a line of a file: that of a suite, or the first line of a model's file. All
texts are harmless: they have one line each, and no characters that a terminal or XML cannot take.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from composecli.commands.references import locate
from composecli.commands.results import (
    NOT_COMPATIBLE,
    OK,
    CheckReport,
    ContractReport,
    InspectReport,
    ItemReport,
    ItemStatus,
    JoinReport,
    ProblemReport,
    Report,
    SeamReport,
    SuiteReport,
    WeightsReport,
    exit_code,
)
from composecli.core.blueprint import Mode
from composecli.core.command_line import PROGRAM
from composecli.core.errors import Problem
from composecli.core.findings import Finding, Side
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule, Severity
from composecli.report.harmless import sanitize

# Of one item. A log of CI is read by people.
MAX_MESSAGES = 100
_LINE_OF_FILE = re.compile(r"(.+):([1-9]\d{0,8})", re.DOTALL)


class Status(StrEnum):
    """What became of an item."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Message:
    """A finding or a problem. `lines` are its sides, notes and help; it names the `models`."""

    rule: Rule
    title: str
    lines: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def severity(self) -> Severity:
        """The effect of its rule."""
        return self.rule.severity

    @property
    def text(self) -> str:
        """The title and the lines below it."""
        return "\n".join((self.title, *self.lines))

    @property
    def heading(self) -> str:
        """The title as the table has it: `error[CC203]: feature width differs`."""
        label = "error" if self.rule.is_problem else str(self.severity)
        return f"{label}[{self.rule.value}]: {self.title}"


@dataclass(frozen=True, slots=True)
class Item:
    """A seam, a model, or an item of a suite. `file` is a path as the command line has it."""

    name: str
    kind: str
    status: Status
    summary: str
    messages: tuple[Message, ...] = ()
    file: str = ""
    line: int = 1


@dataclass(frozen=True, slots=True)
class Results:
    """The items of a report, and the exit code of the command. `edges` are the models it connects.

    An edge is from a model to the one that takes its output, or to the merge of parallel models.
    """

    command: str
    items: tuple[Item, ...]
    exit_code: int
    edges: tuple[tuple[str, str, str], ...] = ()

    @property
    def title(self) -> str:
        """The command as it was called."""
        return f"{PROGRAM} {self.command}".strip()

    @property
    def summary(self) -> str:
        """The command, and how many of its items passed."""
        passed = sum(item.status is Status.PASSED for item in self.items)
        return f"{self.title}: {passed} of {len(self.items)} passed"


def results_of(report: Report) -> Results:
    """Return the items of a report of any command."""
    edges: tuple[tuple[str, str, str], ...] = ()
    match report:
        case CheckReport():
            command, items, edges = "check", _of_check(report), _edges(report)
        case JoinReport(check):
            command, items, edges = "join", _of_join(report), _edges(check)
        case InspectReport():
            command, items = "inspect", [_of_inspect(report)]
        case WeightsReport():
            command, items = "check", [_of_weights(report)]
        case SuiteReport():
            command, items = "suite", [_of_suite(report, item) for item in report.items]
        case ProblemReport(problem):
            command, items = "", [_of_problem(problem)]
    return Results(command, tuple(items), report.exit_code, edges)


def _of_check(report: CheckReport) -> list[Item]:
    """Return an item for each seam; warnings fail it if they make the command fail."""
    items = list[Item]()
    for seam in report.seams:
        code = exit_code(seam.verdict)
        is_warned = any(finding.severity is Severity.WARNING for finding in seam.findings)
        if code == OK and is_warned and report.fail_on is Severity.WARNING:
            code = NOT_COMPATIBLE
        items.append(_of_seam(seam, report.mode, code))
    return items


def _of_seam(seam: SeamReport, mode: Mode, code: int) -> Item:
    sign = " | " if mode is Mode.PARALLEL else " -> "
    summary = str(seam.verdict)
    if seam.fit.when and code == OK:
        summary = f"{summary} when {' and '.join(seam.fit.when)}"
    return Item(
        sanitize(f"{seam.producer}{sign}{seam.consumer}"),
        "seam",
        _status(code),
        sanitize(summary),
        _messages(seam.findings),
        _file_of(seam.consumer),
    )


def _of_join(report: JoinReport) -> list[Item]:
    """Return the seams, those with a bridge in the file as passed, and the file."""
    items = list[Item]()
    for number, item in enumerate(_of_check(report.check)):
        is_bridged = report.written is not None and number in report.bridged
        status = Status.PASSED if is_bridged else item.status
        items.append(Item(item.name, item.kind, status, item.summary, item.messages, item.file))
    if report.written is not None:
        summary = "written and verified"
        path = report.written.path
        messages = _messages(report.written.notes)
        items.append(Item(sanitize(path), "file", Status.PASSED, summary, messages, path))
    return items


def _of_inspect(report: InspectReport) -> Item:
    contract = report.model.contract
    summary = "no contract found" if contract is None else str(contract)
    findings = () if report.finding is None else (report.finding,)
    name = report.model.name
    status = _status(report.exit_code)
    return Item(
        sanitize(name), "model", status, sanitize(summary), _messages(findings), _file_of(name)
    )


def _of_weights(report: WeightsReport) -> Item:
    messages = () if report.misfit is None else (_of_a_problem(report.misfit),)
    summary = "the weights fit" if report.misfit is None else "the weights do not fit"
    status = _status(report.exit_code)
    return Item(sanitize(report.model), "fit", status, summary, messages, _file_of(report.model))


def _of_problem(problem: Problem) -> Item:
    message = _of_a_problem(problem)
    where, line = problem.where or "", 1
    name = sanitize(where) or PROGRAM
    place = _LINE_OF_FILE.fullmatch(where)
    if place is not None and os.path.exists(place[1]):
        where, line = place[1], int(place[2])
    return Item(name, "problem", Status.UNKNOWN, message.title, (message,), _file_of(where), line)


_STATUSES = {
    ItemStatus.PASSED: Status.PASSED,
    ItemStatus.FAILED: Status.FAILED,
    ItemStatus.UNKNOWN: Status.UNKNOWN,
    ItemStatus.SKIPPED: Status.SKIPPED,
    ItemStatus.NOT_RUN: Status.UNKNOWN,
}


def _of_suite(report: SuiteReport, item: ItemReport) -> Item:
    """Return an item of a suite, at its line of the file."""
    messages = list[Message]()
    match item.detail:
        case CheckReport(seams=seams):
            messages += _messages(finding for seam in seams for finding in seam.findings)
        case WeightsReport(misfit=Problem() as misfit):
            messages.append(_of_a_problem(misfit))
        case ContractReport(finding=Finding() as finding):
            messages += _messages([finding])
    if item.problem is not None:
        messages.append(_of_a_problem(item.problem))
    summary = _summary(report, item)
    if item.status is ItemStatus.FAILED and all(map(_is_note, messages)):
        messages.insert(0, Message(Rule.NOT_AS_EXPECTED, summary))
    return Item(
        sanitize(item.name),
        str(item.kind),
        _STATUSES[item.status],
        summary,
        tuple(messages[:MAX_MESSAGES]),
        report.path,
        item.line,
    )


def _is_note(message: Message) -> bool:
    return message.severity is Severity.NOTE


def _summary(report: SuiteReport, item: ItemReport) -> str:
    """Return what was found, and what was expected if that is something else."""
    if item.status is ItemStatus.SKIPPED:
        return f"skipped, unchanged since {sanitize(report.changed_since or '')}"
    if item.status is ItemStatus.NOT_RUN:
        return "not run, as the command was interrupted"
    if item.outcome is None:
        return "could not be checked"
    match item.detail:
        case ContractReport(model, expected) if item.status is ItemStatus.FAILED:
            return sanitize(f"found {model.contract}, and {expected} was expected")
    if item.outcome is not item.expected:
        return f"{item.outcome}, and {item.expected} was expected"
    return str(item.outcome)


def _status(code: int) -> Status:
    if code == OK:
        return Status.PASSED
    if code == NOT_COMPATIBLE:
        return Status.FAILED
    return Status.UNKNOWN


def _messages(findings: Iterable[Finding]) -> tuple[Message, ...]:
    """Return the messages of findings, the most severe first."""
    order = list(Severity)
    ordered = sorted(findings, key=lambda finding: order.index(finding.severity))
    return tuple(map(_of_finding, ordered[:MAX_MESSAGES]))


def _of_finding(finding: Finding) -> Message:
    lines = [_side(side) for side in finding.sides]
    lines += (f"note: {note}" for note in finding.notes)
    lines += (f"help: {fix.command}" for fix in finding.fixes)
    lines += (f"help: {help}" for help in finding.help)
    models = dict.fromkeys(sanitize(side.model) for side in finding.sides)
    return Message(finding.rule, sanitize(finding.title), _harmless(lines), tuple(models))


def _of_a_problem(problem: Problem) -> Message:
    lines = [f"note: {note}" for note in problem.notes]
    lines += (f"help: {remedy.text}" for remedy in problem.remedies)
    lines += (f"help: {help}" for help in problem.help)
    models = () if problem.where is None else (sanitize(problem.where),)
    return Message(problem.rule, sanitize(problem.title), _harmless(lines), models)


def _side(side: Side) -> str:
    return " ".join(part for part in (side.model, side.port, side.text) if part)


def _harmless(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(sanitize, lines))


def _edges(report: CheckReport) -> tuple[tuple[str, str, str], ...]:
    """Return who feeds whom, with the verdict; parallel models feed their merge."""
    edges = list[tuple[str, str, str]]()
    for seam in report.seams:
        producer, consumer = sanitize(seam.producer), sanitize(seam.consumer)
        if report.mode is Mode.PARALLEL:
            first = (producer, "merge", "") if not edges else None
            edges += filter(None, [first])
            edges.append((consumer, "merge", str(seam.verdict)))
        else:
            edges.append((producer, consumer, str(seam.verdict)))
    return tuple(edges)


def _file_of(model: str) -> str:
    """Return the path of the file of a MODEL argument: the weights or the code of a factory."""
    if not model:
        return ""
    reference = locate(model)
    if not isinstance(reference, FactoryReference):
        return reference.path
    if reference.path is None and reference.module.endswith(".py"):
        return reference.module
    return reference.path or ""


def relative_path(path: str) -> str:
    """Return a path from the current folder, with slashes; as it is if it lies elsewhere.

    Systems of CI take paths from the root of the repository alone.
    """
    try:
        relative = os.path.relpath(path or ".")
    except ValueError:
        # It is on another drive.
        return sanitize(path)
    if relative.startswith(os.pardir):
        return sanitize(path)
    return sanitize(relative.replace(os.sep, "/"))
