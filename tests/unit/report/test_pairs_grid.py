"""The grid of `check --mode pairs`."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from composecli.commands.results import CheckReport, SeamReport
from composecli.core.blueprint import Mode
from composecli.core.findings import Verdict
from tests.unit.report.rendering import rendered
from tests.unit.report.reports import CHECK, MODEL


def pairs(count: int) -> CheckReport:
    """A report on all pairs; each model accepts only the output of the one before it."""
    names = [f"{number}.pt" for number in range(1, count + 1)]
    seams = list[SeamReport]()
    for producer, consumer in permutations(range(count), 2):
        fits = consumer == producer + 1
        verdict = Verdict.COMPATIBLE if fits else Verdict.INCOMPATIBLE
        seams.append(SeamReport(names[producer], names[consumer], (), (), verdict))
    models = tuple(replace(MODEL, name=name) for name in names)
    return replace(CHECK, mode=Mode.PAIRS, models=models, seams=tuple(seams))


def test_each_row_marks_the_consumers_that_accept_its_output() -> None:
    lines = [line.split() for line in rendered(pairs(3)).splitlines()]
    assert ["1", "1.pt", "yes", "-"] in lines
    assert ["2", "2.pt", "-", "yes"] in lines
    assert ["3", "3.pt", "-", "-"] in lines


def test_the_compatible_pairs_are_counted_and_named() -> None:
    text = rendered(pairs(3), quiet=True)
    assert "6 pairs: 2 compatible (yes), 4 incompatible (-)" in text
    assert "  1.pt -> 2.pt\n  2.pt -> 3.pt\n" in text


@pytest.mark.parametrize(("count", "parts"), [(9, 1), (10, 2), (19, 3)])
def test_a_wide_grid_is_split_into_parts(
    count: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    text = rendered(pairs(count), quiet=True)
    assert text.count("gives \\ takes") == parts
    grid = text.partition(" pairs:")[0]
    assert max(map(len, grid.splitlines())) <= 80
