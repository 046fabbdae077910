"""What a run of the zoo found: a row for each file, a line for each source and form."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from tests.zoo.specimens import FORMS

OUTCOMES = ("found", "partly", "wrong", "unknown", "broken")
SMALL = 30_000_000


@dataclass(frozen=True)
class Row:
    """One file: `outcome` is found, wrong, partly (a dim is open), unknown, or broken (ours, or the zoo's)."""

    source: str
    name: str
    form: str
    outcome: str
    contract: str
    details: tuple[str, ...]
    probes: int
    seconds: float
    parameters: int


def said(row: Row) -> Iterator[str]:
    """A row in words, with what speaks against it."""
    yield f"{row.outcome:8} {row.source} {row.name} {row.form} ({row.probes}, {row.seconds:.1f} s)"
    yield from (f"         {line}" for line in (row.contract, *row.details[:4]) if line)


def table(rows: list[Row], sources: tuple[str, ...]) -> Iterator[str]:
    """A line for each source and form, and for all of them together."""
    heads = " ".join(f"{word:>7}" for word in ("files", *OUTCOMES))
    yield f"{'source':13}{'form':9}{heads} {'probes':>10} {'seconds':>13} {'under 30 M':>13}"
    for source in (*sources, "all"):
        for form in (*FORMS, "all"):
            chosen = [
                row for row in rows if source in (row.source, "all") and form in (row.form, "all")
            ]
            if chosen:
                yield f"{source:13}{form:9}{_line(chosen)}"


def _line(rows: list[Row]) -> str:
    counts = " ".join(f"{sum(row.outcome == word for row in rows):7}" for word in OUTCOMES)
    probes = _middle([row.probes for row in rows], 0)
    seconds = _middle([row.seconds for row in rows], 2)
    small = _middle([row.seconds for row in rows if row.parameters < SMALL], 2)
    return f"{len(rows):7} {counts} {probes:>10} {seconds:>13} {small:>13}"


def _middle(values: list[int] | list[float], digits: int) -> str:
    """The median and the 95th percentile."""
    if not values:
        return "-"
    high = sorted(values)[math.ceil(0.95 * len(values)) - 1]
    return f"{statistics.median(values):.{digits}f} / {high:.{digits}f}"
