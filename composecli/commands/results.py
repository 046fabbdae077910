"""Results: what each command found, and the exit code that falls out of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import Bridge
from composecli.core.contract import Contract
from composecli.core.errors import Problem
from composecli.core.facts import ModelFacts
from composecli.core.findings import Finding, Verdict
from composecli.core.rules import Rule
from composecli.workers.protocol import Check, LayerRow, Sandbox

OUR_BUG = Rule.A_BUG_OF_OURS
# 2 is for wrong words, and Click's own.
OK, NOT_COMPATIBLE, COULD_NOT_TELL, BUG, INTERRUPTED = 0, 1, 3, 70, 130


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model of the command. `evidence` and `contract` as far as they were found."""

    name: str
    kind: str
    contract: Contract | None
    probes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PortRow:
    """One port of a seam: what is given beside what is taken. An empty text stands for none."""

    gives: str
    given: str
    takes: str
    taken: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class SeamReport:
    """Where two models meet; in parallel, where their outputs are merged."""

    producer: str
    consumer: str
    rows: tuple[PortRow, ...]
    findings: tuple[Finding, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The answer of `check`. `example` is the input that the verdict speaks for, `result` what the last model gave.

    `interrupted`: it was ended by the user, and this is what was known by then. `isolation` is what the process that
    ran the models had given up.
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

    @property
    def verdict(self) -> Verdict:
        return overall(seam.verdict for seam in self.seams)

    @property
    def exit_code(self) -> int:
        return INTERRUPTED if self.interrupted else exit_code(self.verdict)


@dataclass(frozen=True, slots=True)
class Written:
    """The file that `join` wrote, and how it was verified."""

    path: str
    size: int
    sha256: str
    bridges: tuple[Bridge, ...]
    merge: Merge | None
    checks: tuple[Check, ...]
    notes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class JoinReport:
    """The answer of `join`: the check that came before, and what was written where it allowed that."""

    check: CheckReport
    written: Written | None
    bridged: tuple[int, ...] = ()

    @property
    def exit_code(self) -> int:
        return OK if self.written is not None else self.check.exit_code or COULD_NOT_TELL


@dataclass(frozen=True, slots=True)
class InspectReport:
    """The answer of `inspect`. `finding` says why there is no contract where there is none."""

    model: ModelReport
    facts: ModelFacts
    layers: tuple[LayerRow, ...]
    finding: Finding | None
    portability: tuple[str, ...]
    provenance: str | None
    file_size: int
    interrupted: bool = False
    isolation: Sandbox | None = field(default=None, compare=False)

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return INTERRUPTED
        return OK if self.model.contract is not None else COULD_NOT_TELL


@dataclass(frozen=True, slots=True)
class ProblemReport:
    """What stopped the command before it could find anything out; our own bugs have an exit code of their own."""

    problem: Problem

    @property
    def exit_code(self) -> int:
        return BUG if self.problem.rule is OUR_BUG else COULD_NOT_TELL


Report = CheckReport | JoinReport | InspectReport | ProblemReport


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a chain: the worst of its seams; no seam at all is not known."""
    found = set(verdicts)
    for worst in (Verdict.INCOMPATIBLE, Verdict.BRIDGEABLE, Verdict.UNKNOWN, Verdict.COMPATIBLE):
        if worst in found:
            return worst
    return Verdict.UNKNOWN


def exit_code(verdict: Verdict) -> int:
    return {Verdict.COMPATIBLE: OK, Verdict.UNKNOWN: COULD_NOT_TELL}.get(verdict, NOT_COMPATIBLE)
