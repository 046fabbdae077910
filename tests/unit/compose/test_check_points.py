"""Conditions are checked at sizes on both sides of their ends, with sizes that differ."""

from __future__ import annotations

from composecli.compose.check_points import (
    Admitted,
    failing_points,
    fitting_points,
    meets,
    smallest_failing,
)
from composecli.compose.conditions import conditions_of
from composecli.core.dims import Free, parse_shape

RANGES = {"N": Free("N"), "H": Free("H", 7), "W": Free("W")}
ADMITTED = Admitted(RANGES)
SIZES = {"N": 2, "H": 32, "W": 32}
CONDITIONS = conditions_of(
    parse_shape("N, ceil(H/4), ceil(W/4)"), parse_shape("B, 8, 8"), RANGES, SIZES
)


def test_points_that_fit_are_at_the_ends_and_at_sizes_that_differ() -> None:
    assert fitting_points(CONDITIONS, ADMITTED, SIZES) == [
        {"N": 1, "H": 29, "W": 29},
        {"N": 3, "H": 32, "W": 32},
    ]
    free = fitting_points((), ADMITTED, SIZES)
    assert free == [{"N": 1, "H": 7, "W": 1}, {"N": 3, "H": 34, "W": 35}]


def test_points_that_fail_are_just_outside_of_each_condition() -> None:
    found = failing_points(CONDITIONS, ADMITTED, SIZES)
    assert [(point["H"], point["W"]) for point in found] == [(28, 32), (33, 32), (32, 28), (32, 33)]
    assert not any(meets(CONDITIONS, point) for point in found)


def test_the_smallest_size_that_the_producer_admits_comes_first() -> None:
    assert next(smallest_failing(CONDITIONS, ADMITTED, SIZES)) == {"N": 2, "H": 7, "W": 32}
    assert list(smallest_failing((), ADMITTED, SIZES)) == []
    product = conditions_of(parse_shape("H*W"), parse_shape("L<=1024"), RANGES, SIZES)
    assert next(smallest_failing(product, ADMITTED, SIZES)) == {"N": 2, "H": 33, "W": 32}
