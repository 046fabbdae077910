"""Early signals: the report that is written without a module to write reports is the same one."""

from __future__ import annotations

import io
import signal

import pytest

from composecli.commands.results import ProblemReport
from composecli.core.errors import Problem
from composecli.core.rules import Rule
from composecli.early_signals import _ENDS, _REPORT
from composecli.report.formats import FORMATS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_report_is_that_of_a_command_that_was_stopped(number: signal.Signals) -> None:
    code, title, exit_code = _ENDS[number]
    rules = {rule.value: rule for rule in Rule}
    stream = io.StringIO()
    report = ProblemReport(Problem(rules[code], title))
    FORMATS["json"].render(report, stream, quiet=False)
    assert _REPORT.format(code=code, title=title, exit_code=exit_code) == stream.getvalue()
    assert rules[code].exit_code == exit_code
