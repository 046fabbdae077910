"""Render a report as a table for people."""

from __future__ import annotations

from typing import IO

from composecli.commands.results import (
    CheckReport,
    InspectReport,
    JoinReport,
    ProblemReport,
    Report,
    SuiteReport,
    WeightsReport,
)
from composecli.report.check_table import print_check, print_join
from composecli.report.inspect_table import print_inspect
from composecli.report.screen import Screen
from composecli.report.suite_table import print_suite
from composecli.report.text import format_problem
from composecli.report.weights_text import print_weights


def render(report: Report, file: IO[str], *, quiet: bool = False) -> None:
    """Print a report; if `quiet`, only the verdict and the findings."""
    screen = Screen(file)
    match report:
        case CheckReport():
            print_check(screen, report, quiet=quiet)
        case JoinReport():
            print_join(screen, report, quiet=quiet)
        case InspectReport():
            print_inspect(screen, report, quiet=quiet)
        case WeightsReport():
            print_weights(screen, report, quiet=quiet)
        case SuiteReport():
            print_suite(screen, report, quiet=quiet)
        case ProblemReport(problem):
            screen.print_lines(format_problem(problem, screen.width))
