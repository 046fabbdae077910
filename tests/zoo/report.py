"""The report of a zoo run: an entry for each file, and a table by source and form."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from tests.zoo.specimens import FORMS

OUTCOMES = ("found", "partly", "wrong", "unknown", "broken")
MAX_SMALL_PARAMETERS = 30_000_000


@dataclass(frozen=True)
class Row:
    """The result for one file.

    `outcome` is `found`, `partly` (a dim is unknown), `wrong` (a run contradicts the contract),
    `unknown` (no contract), or `broken` (composecli or the zoo failed).
    """

    source: str
    name: str
    form: str
    outcome: str
    contract: str
    details: tuple[str, ...]
    probes: int
    seconds: float
    parameters: int


def describe(row: Row) -> Iterator[str]:
    """Yield the lines of one row: the outcome, the contract, and the first details."""
    yield f"{row.outcome:8} {row.source} {row.name} {row.form} ({row.probes}, {row.seconds:.1f} s)"
    for line in (row.contract, *row.details[:4]):
        if line:
            yield f"         {line}"


def table(rows: list[Row], sources: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a table by source and form, with totals."""
    heads = " ".join(f"{word:>7}" for word in ("files", *OUTCOMES))
    yield f"{'source':13}{'form':9}{heads} {'probes':>10} {'seconds':>13} {'under 30 M':>13}"
    for source in (*sources, "all"):
        for form in (*FORMS, "all"):
            of_source = [row for row in rows if source in (row.source, "all")]
            chosen = [row for row in of_source if form in (row.form, "all")]
            if chosen:
                yield f"{source:13}{form:9}{_summarise(chosen)}"


def _summarise(rows: list[Row]) -> str:
    counts = " ".join(f"{sum(row.outcome == outcome for row in rows):7}" for outcome in OUTCOMES)
    small = [row for row in rows if row.parameters < MAX_SMALL_PARAMETERS]
    probes = _median_and_95th([row.probes for row in rows], 0)
    seconds = _median_and_95th([row.seconds for row in rows], 2)
    small_seconds = _median_and_95th([row.seconds for row in small], 2)
    return f"{len(rows):7} {counts} {probes:>10} {seconds:>13} {small_seconds:>13}"


def _median_and_95th(values: list[int] | list[float], digits: int) -> str:
    """Return the median and the 95th percentile as text."""
    if not values:
        return "-"
    high = sorted(values)[math.ceil(0.95 * len(values)) - 1]
    return f"{statistics.median(values):.{digits}f} / {high:.{digits}f}"
