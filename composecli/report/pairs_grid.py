"""The table of `check --mode pairs`: a grid of all pairs, then the compatible ones by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from composecli.commands.results import CheckReport, ModelReport, SeamReport
from composecli.core.findings import Verdict
from composecli.core.fit import format_when
from composecli.core.rules import Severity
from composecli.report.harmless import sanitize
from composecli.report.screen import VERDICT_STYLES, Screen, new_table
from composecli.report.text import shorten_path

MAX_NAME_COLUMNS = 26
# The column of names with its margins, and one column of marks.
_NAMES_WIDTH = 31
_MARK_WIDTH = 5
_MARKS = {
    Verdict.COMPATIBLE: "yes",
    Verdict.BRIDGEABLE: "brd",
    Verdict.INCOMPATIBLE: "-",
    Verdict.UNKNOWN: "?",
}

# The verdict of each pair, by the numbers of the producer and the consumer.
Verdicts = Mapping[tuple[int, int], Verdict]


def print_pairs(screen: Screen, report: CheckReport) -> None:
    """Print a row for each producer and a column for each consumer, then the compatible pairs.

    A grid that is wider than the screen is printed in several parts. The findings of the other
    pairs are in the JSON report only.
    """
    verdicts = _verdicts(report)
    count = len(report.models)
    width = screen.width - _NAMES_WIDTH
    columns_per_part = max(1, width // _MARK_WIDTH)
    for first in range(0, count, columns_per_part):
        end = min(first + columns_per_part, count)
        columns = range(first, end)
        grid = _grid(report.models, columns, verdicts)
        screen.print(grid)
    summary = _summary(report)
    screen.print(f"{len(report.seams)} pairs: {summary}")
    for seam in report.seams:
        if seam.verdict is not Verdict.COMPATIBLE:
            continue
        producer = sanitize(seam.producer)
        consumer = sanitize(seam.consumer)
        when = ""
        if seam.fit.when:
            when = f"  when {format_when(seam.fit.when)}"
        screen.print(f"  {producer} -> {consumer}{when}{_warnings(seam)}")


def _warnings(seam: SeamReport) -> str:
    """Return the codes of the warnings about a seam."""
    warnings = [item.code for item in seam.findings if item.severity is Severity.WARNING]
    if not warnings:
        return ""
    return f"  (warning: {', '.join(dict.fromkeys(warnings))})"


def _verdicts(report: CheckReport) -> Verdicts:
    """Return the verdicts of the seams, which are in the order of the rows of the grid."""
    seams = iter(report.seams)
    count = len(report.models)
    verdicts = dict[tuple[int, int], Verdict]()
    for producer in range(count):
        for consumer in range(count):
            if producer == consumer:
                continue
            seam = next(seams)
            verdicts[producer, consumer] = seam.verdict
    return verdicts


def _grid(models: tuple[ModelReport, ...], columns: range, verdicts: Verdicts) -> Table:
    """Return the part of the grid with these columns; both axes are numbered from 1."""
    table = new_table()
    table.add_column("gives \\ takes", overflow="fold", max_width=MAX_NAME_COLUMNS)
    for column in columns:
        table.add_column(str(column + 1), justify="center", no_wrap=True)
    for row, model in enumerate(models):
        marks = [_mark(verdicts.get((row, column))) for column in columns]
        name = sanitize(shorten_path(model.name))
        table.add_row(f"{row + 1} {name}", *marks)
    return table


def _mark(verdict: Verdict | None) -> Text:
    """Return the mark of a pair; empty for a model with itself."""
    if verdict is None:
        return Text("")
    return Text(_MARKS[verdict], VERDICT_STYLES[verdict])


def _summary(report: CheckReport) -> str:
    """Return the number of pairs with each verdict, and the mark that stands for it."""
    counts = Counter(seam.verdict for seam in report.seams)
    texts = list[str]()
    for verdict, mark in _MARKS.items():
        count = counts[verdict]
        if count:
            texts.append(f"{count} {verdict} ({mark})")
    return ", ".join(texts)
