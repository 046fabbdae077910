"""Results: the report of each command, and the exit code that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import Bridge
from composecli.core.contract import Contract
from composecli.core.errors import Problem
from composecli.core.facts import ModelFacts
from composecli.core.findings import Finding, Verdict
from composecli.core.fit import Fit
from composecli.core.rules import Rule, Severity
from composecli.core.slices import AxisFate
from composecli.core.suite import ItemKind, Outcome
from composecli.workers.protocol import Check, LayerRow, Sandbox

OK, NOT_COMPATIBLE, COULD_NOT_TELL, INTERRUPTED = 0, 1, 3, 130

_WORST_FIRST = (
    Verdict.INCOMPATIBLE,
    Verdict.BRIDGEABLE,
    Verdict.UNKNOWN,
    Verdict.COMPATIBLE,
)


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model of the command. `contract` is None if inference did not find one."""

    name: str
    kind: str
    contract: Contract | None
    probes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PortRow:
    """A row of the table of a seam: a port of each model by name and text, empty if missing."""

    gives: str
    given: str
    takes: str
    taken: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class SeamReport:
    """The place where two models meet; in parallel, where their outputs are merged.

    `fit` tells at which sizes of the input of the whole it holds.
    """

    producer: str
    consumer: str
    rows: tuple[PortRow, ...]
    findings: tuple[Finding, ...]
    verdict: Verdict
    fit: Fit = field(default_factory=Fit)


class Answer:
    """What the reports of all commands have in common: an exit code, and what follows from it."""

    __slots__ = ()

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        raise NotImplementedError

    @property
    def ok(self) -> bool:
        """Whether the answer is yes: compatible, written and verified, or a contract was found."""
        return self.exit_code == OK

    def __bool__(self) -> bool:
        """Return whether the answer is yes."""
        return self.ok


@dataclass(frozen=True, slots=True)
class CheckReport(Answer):
    """The result of `check`.

    `fail_on` is the least severity that makes it fail: error or warning. The verdict applies to the
    input `example`, for which the last model returned `result`.
    `interrupted`: the user ended the command, and only these results were known. `isolation`
    lists the measures that confined the process that ran the models.
    """

    mode: Mode
    device: str
    strict: bool
    models: tuple[ModelReport, ...]
    seams: tuple[SeamReport, ...]
    example: str | None
    result: str | None
    interrupted: bool = False
    isolation: Sandbox | None = field(default=None, compare=False)
    fail_on: Severity = Severity.ERROR

    @property
    def warnings(self) -> int:
        """The number of warnings."""
        findings = [finding for seam in self.seams for finding in seam.findings]
        return sum(finding.severity is Severity.WARNING for finding in findings)

    @property
    def fails_on_warnings(self) -> bool:
        """Whether it has warnings that make it fail."""
        return self.warnings > 0 and self.fail_on is Severity.WARNING

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the seams."""
        return overall(seam.verdict for seam in self.seams)

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.interrupted:
            return INTERRUPTED
        code = exit_code(self.verdict)
        if code == OK and self.fails_on_warnings:
            return NOT_COMPATIBLE
        return code


@dataclass(frozen=True, slots=True)
class Written:
    """The file that `join` wrote, and how it was verified. `size` is in bytes."""

    path: str
    size: int
    sha256: str
    bridges: tuple[Bridge, ...]
    merge: Merge | None
    checks: tuple[Check, ...]
    notes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class JoinReport(Answer):
    """The result of `join`: that of the check, and the file if the check allowed it.

    `bridged` are the numbers of the seams that have a bridge in the file.
    """

    check: CheckReport
    written: Written | None
    bridged: tuple[int, ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code of the command: a file that was not written is never a success."""
        if self.written is not None:
            return OK
        return self.check.exit_code or COULD_NOT_TELL


@dataclass(frozen=True, slots=True)
class AxisReport:
    """What becomes of a free dim: the inputs that have it, with the axis, and its fates by output.

    `reason` explains an unknown fate, or names a batch norm in train mode.
    """

    dim: str
    inputs: tuple[tuple[str, int], ...]
    fates: tuple[tuple[str, AxisFate], ...]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class InspectReport(Answer):
    """The result of `inspect`.

    `axes` have the fates of each free dim. `contract_file` is the file that has the contract now.
    `finding` is the reason if there is no contract. `file_size` is in bytes, None for a factory
    without weights. `has_module` is false for a contract file, which has no layers or weights.
    """

    model: ModelReport
    facts: ModelFacts
    layers: tuple[LayerRow, ...]
    finding: Finding | None
    portability: tuple[str, ...]
    provenance: str | None
    file_size: int | None
    interrupted: bool = False
    isolation: Sandbox | None = field(default=None, compare=False)
    axes: tuple[AxisReport, ...] = ()
    contract_file: str | None = None
    has_module: bool = True

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.interrupted:
            return INTERRUPTED
        if self.model.contract is None:
            return COULD_NOT_TELL
        return OK


@dataclass(frozen=True, slots=True)
class WeightsReport(Answer):
    """The result of `check` of a factory alone: whether its weights fit.

    `misfit` has the causes for which they do not; the `facts` are those of a module that they fit.
    """

    model: str
    misfit: Problem | None
    facts: ModelFacts | None = None
    isolation: Sandbox | None = field(default=None, compare=False)

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.misfit is not None:
            return NOT_COMPATIBLE
        return OK


@dataclass(frozen=True, slots=True)
class ContractReport:
    """The contract of a model beside the expected one. `finding` is why there is none."""

    model: ModelReport
    expected: str
    finding: Finding | None = None


class ItemStatus(StrEnum):
    """What became of an item of a suite."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class ItemReport:
    """One item of a suite.

    `line` is that of the suite file. `outcome` is None if the item was not run, or not to its end:
    then `problem` is why, unless it was skipped or interrupted.
    """

    name: str
    kind: ItemKind
    line: int
    models: tuple[str, ...]
    expected: Outcome
    outcome: Outcome | None
    status: ItemStatus
    detail: CheckReport | WeightsReport | ContractReport | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class SuiteReport(Answer):
    """The result of `suite`.

    `changed_since` is the revision whose unchanged items were skipped. `stopped` is set if a signal
    ended the command: the items that had not ended are not run.
    """

    path: str
    items: tuple[ItemReport, ...]
    changed_since: str | None = None
    stopped: Rule | None = None
    isolation: Sandbox | None = field(default=None, compare=False)

    def count(self, status: ItemStatus) -> int:
        """Return the number of items with this status."""
        return sum(item.status is status for item in self.items)

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the command before the last item."""
        return self.stopped is not None

    @property
    def exit_code(self) -> int:
        """The exit code of the command: that of the worst item."""
        if self.stopped is not None:
            return self.stopped.exit_code
        problems = [item.problem.rule for item in self.items if item.problem is not None]
        if Rule.A_BUG_OF_OURS in problems:
            return Rule.A_BUG_OF_OURS.exit_code
        if self.count(ItemStatus.FAILED):
            return NOT_COMPATIBLE
        if self.count(ItemStatus.UNKNOWN):
            return COULD_NOT_TELL
        return OK


@dataclass(frozen=True, slots=True)
class ProblemReport(Answer):
    """The problem that kept a command from having any other result."""

    problem: Problem

    @property
    def exit_code(self) -> int:
        """The exit code of the command. A rule for findings about seams is a problem here."""
        if self.problem.rule.is_problem:
            return self.problem.rule.exit_code
        return COULD_NOT_TELL


Report = CheckReport | JoinReport | InspectReport | WeightsReport | SuiteReport | ProblemReport


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of the verdicts; without any, it is unknown."""
    present = set(verdicts)
    for verdict in _WORST_FIRST:
        if verdict in present:
            return verdict
    return Verdict.UNKNOWN


def exit_code(verdict: Verdict) -> int:
    """Return the exit code of a check with this verdict."""
    match verdict:
        case Verdict.COMPATIBLE:
            return OK
        case Verdict.UNKNOWN:
            return COULD_NOT_TELL
        case Verdict.BRIDGEABLE | Verdict.INCOMPATIBLE:
            return NOT_COMPATIBLE
