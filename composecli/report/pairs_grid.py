"""The table of `check --mode pairs`: a grid of all pairs, then the compatible ones by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from composecli.commands.results import CheckReport, ModelReport
from composecli.core.findings import Verdict
from composecli.report.screen import VERDICT_STYLES, Screen, new_table
from composecli.report.text import sanitize, shorten_path

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
    columns_per_part = max(1, (screen.width - _NAMES_WIDTH) // _MARK_WIDTH)
    for first in range(0, count, columns_per_part):
        columns = range(first, min(first + columns_per_part, count))
        screen.print(_grid(report.models, columns, verdicts))
    screen.print(f"{len(report.seams)} pairs: {_summary(report)}")
    for seam in report.seams:
        if seam.verdict is Verdict.COMPATIBLE:
            screen.print(f"  {sanitize(seam.producer)} -> {sanitize(seam.consumer)}")


def _verdicts(report: CheckReport) -> Verdicts:
    """Return the verdicts of the seams, which are in the order of the rows of the grid."""
    seams = iter(report.seams)
    count = len(report.models)
    verdicts = dict[tuple[int, int], Verdict]()
    for producer in range(count):
        for consumer in range(count):
            if producer != consumer:
                verdicts[producer, consumer] = next(seams).verdict
    return verdicts


def _grid(models: tuple[ModelReport, ...], columns: range, verdicts: Verdicts) -> Table:
    table = new_table()
    table.add_column("gives \\ takes", overflow="fold", max_width=MAX_NAME_COLUMNS)
    for column in columns:
        table.add_column(str(column + 1), justify="center", no_wrap=True)
    for row, model in enumerate(models):
        marks = [_mark(verdicts.get((row, column))) for column in columns]
        table.add_row(f"{row + 1} {sanitize(shorten_path(model.name))}", *marks)
    return table


def _mark(verdict: Verdict | None) -> Text:
    """Return the mark of a pair; empty for a model with itself."""
    if verdict is None:
        return Text("")
    return Text(_MARKS[verdict], VERDICT_STYLES[verdict])


def _summary(report: CheckReport) -> str:
    counts = Counter(seam.verdict for seam in report.seams)
    texts = list[str]()
    for verdict, mark in _MARKS.items():
        if counts[verdict]:
            texts.append(f"{counts[verdict]} {verdict} ({mark})")
    return ", ".join(texts)
