"""Results: the exit code is a function of the report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.commands.results import (
    CheckReport,
    InspectReport,
    JoinReport,
    ModelReport,
    ProblemReport,
    SeamReport,
    Written,
    overall,
)
from composecli.core.blueprint import Mode
from composecli.core.contract import Contract
from composecli.core.errors import Problem
from composecli.core.facts import ModelFacts
from composecli.core.findings import Verdict
from composecli.core.pytree import Call
from composecli.core.rules import Rule
from tests.parsing import spec

COMPATIBLE, BRIDGEABLE = Verdict.COMPATIBLE, Verdict.BRIDGEABLE
INCOMPATIBLE, UNKNOWN = Verdict.INCOMPATIBLE, Verdict.UNKNOWN
WRITTEN = Written("both.pt", 10, "0" * 64, (), None, (), ())


def check_report(*verdicts: Verdict) -> CheckReport:
    """The report of a chain whose seams have these verdicts."""
    seams = tuple(SeamReport("a", "b", (), (), verdict) for verdict in verdicts)
    return CheckReport(Mode.SEQUENTIAL, "cpu", strict=False, models=(), seams=seams, example=None,
                       result=None)  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "worst", "code"),
    [
        ([COMPATIBLE], COMPATIBLE, 0),
        ([COMPATIBLE, COMPATIBLE], COMPATIBLE, 0),
        ([COMPATIBLE, UNKNOWN], UNKNOWN, 3),
        ([UNKNOWN, BRIDGEABLE], BRIDGEABLE, 1),
        ([BRIDGEABLE, INCOMPATIBLE, UNKNOWN, COMPATIBLE], INCOMPATIBLE, 1),
        ([], UNKNOWN, 3),
    ],
)
def test_the_worst_seam_decides(verdicts: list[Verdict], worst: Verdict, code: int) -> None:
    assert overall(verdicts) is worst
    report = check_report(*verdicts)
    assert (report.verdict, report.exit_code) == (worst, code)


def test_an_interrupted_command_has_the_code_of_the_signal() -> None:
    assert replace(check_report(COMPATIBLE), interrupted=True).exit_code == 130


@pytest.mark.parametrize(
    ("verdict", "written", "code"),
    [
        (COMPATIBLE, WRITTEN, 0),
        (BRIDGEABLE, WRITTEN, 0),
        (BRIDGEABLE, None, 1),
        (UNKNOWN, None, 3),
        # A file that was not written is never a success.
        (COMPATIBLE, None, 3),
    ],
)
def test_a_join_succeeds_if_the_file_is_written(
    verdict: Verdict, written: Written | None, code: int
) -> None:
    assert JoinReport(check_report(verdict), written).exit_code == code


def test_an_inspection_succeeds_if_there_is_a_contract() -> None:
    contract = Contract((), (), Call(()), spec("float32[1]"), ())
    facts = ModelFacts("Net", (), "eval", (), 0, 0, 0, (), (), ())
    model = ModelReport("a.pt", "TorchScript archive", contract, 1)
    found = InspectReport(model, facts, (), None, (), None, 10)
    assert found.exit_code == 0
    assert replace(found, model=replace(model, contract=None)).exit_code == 3
    assert replace(found, interrupted=True).exit_code == 130


@pytest.mark.parametrize(("rule", "code"), [(Rule.NOT_A_MODEL, 3), (Rule.A_BUG_OF_OURS, 70)])
def test_a_bug_has_an_exit_code_of_its_own(rule: Rule, code: int) -> None:
    assert ProblemReport(Problem(rule, "title")).exit_code == code


@pytest.mark.parametrize(
    ("verdict", "ok"),
    [(COMPATIBLE, True), (BRIDGEABLE, False), (INCOMPATIBLE, False), (UNKNOWN, False)],
)
def test_a_report_is_true_if_the_models_fit(verdict: Verdict, ok: bool) -> None:
    report = check_report(verdict)
    assert (report.ok, bool(report)) == (ok, ok)
    assert not replace(report, interrupted=True)
    assert bool(JoinReport(report, WRITTEN))
    assert not JoinReport(report, None)
    assert not ProblemReport(Problem(Rule.NO_SUCH_FILE, "no file"))
