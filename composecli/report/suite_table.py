"""The screen of `suite`: a row for each item, and the details of those that did not pass."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from composecli.commands.results import (
    CheckReport,
    ContractReport,
    ItemReport,
    ItemStatus,
    SuiteReport,
    WeightsReport,
)
from composecli.core.errors import Problem
from composecli.core.rules import Severity
from composecli.report.bounds import MAX_SHOWN_LINES, first_items
from composecli.report.harmless import sanitize
from composecli.report.screen import Screen, new_table
from composecli.report.sections import print_interrupted, print_isolation
from composecli.report.text import format_finding, format_problem

MAX_ITEM_COLUMNS = 40
_STYLES = {
    ItemStatus.PASSED: "bold green",
    ItemStatus.FAILED: "bold red",
    ItemStatus.UNKNOWN: "bold yellow",
    ItemStatus.SKIPPED: "",
    ItemStatus.NOT_RUN: "bold yellow",
}
# Counted below the table instead, like all that passed if little is to be printed.
_WITHOUT_ROW = (ItemStatus.SKIPPED, ItemStatus.NOT_RUN)


def print_suite(screen: Screen, report: SuiteReport, *, quiet: bool) -> None:
    """Print the table, the details of what did not pass, and how many items passed.

    If `quiet`, the table has only the items that did not pass.
    """
    rows = [item for item in report.items if item.status not in _WITHOUT_ROW]
    wanting = [item for item in rows if item.status is not ItemStatus.PASSED]
    if quiet:
        rows = wanting
    if rows:
        screen.print(_table(rows))
    _print_details(screen, report, wanting)
    if not quiet:
        print_isolation(screen, report.isolation)
    if report.interrupted:
        print_interrupted(screen)
    screen.print(_summary(report))


def _table(items: list[ItemReport]) -> Table:
    """Return the rows of the items that have ended."""
    table = new_table()
    table.add_column("line", justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("item", overflow="fold", max_width=MAX_ITEM_COLUMNS)
    table.add_column("found", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for item in items:
        found = "-"
        if item.outcome is not None:
            found = str(item.outcome)
        status = Text(str(item.status), _STYLES[item.status])
        table.add_row(str(item.line), str(item.kind), sanitize(item.name), found, status)
    return table


def _print_details(screen: Screen, report: SuiteReport, items: list[ItemReport]) -> None:
    """Print what was found about each item, and a problem that several have only once."""
    shown, hidden = first_items(items, MAX_SHOWN_LINES)
    lines = dict[tuple[str, str, str | None], int]()
    for item in shown:
        screen.print_wrapped(f"{report.path}:{item.line}: {_heading(item)}")
        if item.problem is not None:
            key = (item.problem.code, item.problem.title, item.problem.where)
            if key in lines:
                screen.print(f"  the same problem as line {lines[key]} has: {item.problem.code}")
                screen.print()
                continue
            lines[key] = item.line
        _print_detail(screen, item)
        screen.print()
    if hidden:
        screen.print(f"and {hidden:,} more items (--format json has the details of all)")


def _heading(item: ItemReport) -> str:
    """Return the name of an item, and what was expected of it."""
    if item.outcome is None:
        return f"{item.name}: could not be checked"
    if item.outcome is not item.expected:
        return f"{item.name}: {item.outcome}, and {item.expected} was expected"
    return f"{item.name}: {item.outcome}, with warnings"


def _print_detail(screen: Screen, item: ItemReport) -> None:
    """Print the findings about an item, or its problem."""
    if item.problem is not None:
        screen.print_lines(format_problem(item.problem, screen.width))
    match item.detail:
        case CheckReport():
            findings = [finding for seam in item.detail.seams for finding in seam.findings]
            shown = [finding for finding in findings if finding.severity is not Severity.NOTE]
            for finding in shown[:MAX_SHOWN_LINES]:
                screen.print_lines(format_finding(finding, screen.width))
        case WeightsReport(misfit=Problem() as misfit):
            screen.print_lines(format_problem(misfit, screen.width))
        case ContractReport():
            _print_contracts(screen, item.detail)


def _print_contracts(screen: Screen, report: ContractReport) -> None:
    """Print the expected contract above the one that was found."""
    screen.print_wrapped(f"  expected  {report.expected}")
    if report.model.contract is not None:
        screen.print_wrapped(f"  found     {report.model.contract}")
    if report.finding is not None:
        screen.print_lines(format_finding(report.finding, screen.width))


def _summary(report: SuiteReport) -> Text:
    """Return the number of checks, and how many of them ended in each way."""
    count = len(report.items)
    ending = "" if count == 1 else "s"
    parts: list[str | tuple[str, str]] = [f"{count} check{ending}: "]
    for status in ItemStatus:
        number = report.count(status)
        if not number:
            continue
        if len(parts) > 1:
            parts.append(", ")
        text = f"{number} {status}"
        if status is ItemStatus.SKIPPED:
            text = f"{number} skipped, unchanged since {sanitize(report.changed_since or '')}"
        parts.append((text, _STYLES[status]))
    return Text.assemble(*parts)
