"""Reports as JUnit XML, by junitparser: a test case for each item.

There is no standard. Jenkins's schema (`junit-10.xsd` of its xUnit plugin) is the strictest known:
a test case has no file.
"""

from __future__ import annotations

from typing import IO, Any

from composecli.commands.results import Report
from composecli.core.command_line import PROGRAM
from composecli.core.rules import Severity
from composecli.report.items import Item, Message, Results, Status, results_of


def render(report: Report, file: IO[str], *, quiet: bool = False) -> None:  # noqa: ARG001
    """Write one XML document. It is always complete: `quiet` has no effect."""
    from junitparser import JUnitXml

    document = JUnitXml(PROGRAM)
    document.add_testsuite(_suite(results_of(report)))
    file.write('<?xml version="1.0" encoding="utf-8"?>\n')
    file.write(document.tostring().decode("utf-8"))
    file.write("\n")


def _suite(results: Results) -> Any:
    """Return the test suite of a report."""
    from junitparser import TestSuite

    suite = TestSuite(results.title)
    for item in results.items:
        suite.add_testcase(_case(item, results.command))
    suite.update_statistics()
    return suite


def _case(item: Item, command: str) -> Any:
    """Return a test case; what could not be told is an error, and not a failure."""
    from junitparser import Error, Failure, Skipped, TestCase

    case = TestCase(item.name, ".".join(filter(None, (PROGRAM, command, item.kind))))
    kinds = {Status.FAILED: Failure, Status.UNKNOWN: Error, Status.SKIPPED: Skipped}
    if item.status in kinds:
        result = kinds[item.status](item.summary, _code(item))
        result.text = "\n\n".join(map(_text, item.messages))
        case.result = [result]
    elif item.messages:
        case.system_out = "\n\n".join(map(_text, item.messages))
    return case


def _code(item: Item) -> str:
    """Return the code of the rule that decided, "" if none did."""
    for message in item.messages:
        if message.severity is not Severity.NOTE:
            return message.rule.value
    return ""


def _text(message: Message) -> str:
    return "\n".join((message.heading, *message.lines))
