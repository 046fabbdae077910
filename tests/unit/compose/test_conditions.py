"""Conditions: the sizes at which a producer fits, solved, and the smallest size that does not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.compose.conditions import MAX_TRIED_SIZE, equality_conditions, solve_condition
from composecli.core.dims import Derived, Fixed, Free, Unknown, admits, parse_dim
from composecli.core.size_expr import evaluate
from composecli.inference.size_rules import SizeRule


@pytest.mark.parametrize(
    ("gives", "takes", "text", "fails_at"),
    [
        ("ceil(H/32)", "D>=2", "H >= 33", "H = 1, where ceil(H/32) is 1"),
        ("ceil(H/8)", "4", "H >= 25 and H <= 32", "H = 1, where ceil(H/8) is 1"),
        ("H//16 + 1", "D<=17", "H <= 271", "H = 272, where H//16 + 1 is 18"),
        ("2*H", "D%4==0", "H % 2 == 0", "H = 1, where 2*H is 2"),
        ("2*H", "D", None, None),
        ("H", "D%16==0 & D<=64", "H % 16 == 0 and H <= 64", "H = 1"),
        ("H>=32", "D>=16", None, None),
        ("H>=32", "D>=33", "H >= 33", "H = 32"),
        ("H<=64", "D<=64", None, None),
        ("H%24==0", "D%16==0", "H % 48 == 0", "H = 24"),
        ("2*H + 1", "4", "2*H + 1 == 4", "H = 1, where 2*H + 1 is 3"),
        ("N*T", "D>=6", "N*T >= 6", None),
        ("N*T", "D", None, None),
        ("5", "D>=6", None, None),
    ],
)
def test_a_condition_is_solved_for_the_producers_input(
    gives: str, takes: str, text: str | None, fails_at: str | None
) -> None:
    found = solve_condition(parse_dim(gives), parse_dim(takes), {})
    assert (found.text if found else None, found.fails_at if found else None) == (text, fails_at)


def test_the_range_of_the_producers_own_input_counts() -> None:
    assert solve_condition(parse_dim("H//8"), Free("D", 4), {"H": Free("H", 32)}) is None
    found = solve_condition(parse_dim("H//8"), Free("D", 4), {"H": Free("H", 24)})
    assert found is not None
    assert found.fails_at == "H = 24, where H//8 is 3"


def test_an_unknown_dim_has_no_condition() -> None:
    assert solve_condition(Unknown("no"), Fixed(3), {}) is None
    assert solve_condition(Free("N"), Unknown("no"), {}) is None


RULES = st.builds(
    SizeRule, st.integers(1, 3), st.integers(0, 15), st.integers(1, 16), st.integers(0, 3)
)
ASKED = st.builds(
    Free,
    st.just("D"),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(40, 90)),
    st.integers(1, 5),
)


@given(RULES, ASKED)
def test_a_condition_holds_exactly_for_the_sizes_that_fit(rule: SizeRule, asked: Free) -> None:
    given_dim = Derived(rule.expr("H"))
    fits = [admits(asked, evaluate(given_dim.expr, {"H": size})) for size in range(1, 300)]
    found = solve_condition(given_dim, asked, {})
    if found is None:
        assert all(fits)
        return
    assert found.fails_at is not None
    smallest = int(re.findall(r"H = (\d+)", found.fails_at)[0])
    assert smallest == next((n for n, good in enumerate(fits, 1) if not good), smallest)
    assert smallest <= MAX_TRIED_SIZE
    if "//" not in found.text and "ceil" not in found.text and "*" not in found.text:
        # The text is a Python expression that this package wrote.
        holds = [eval(found.text, {"H": size}) for size in range(1, 300)]  # noqa: S307
        assert holds == fits


def test_axes_that_must_be_equal() -> None:
    square = (Free("N"), Free("D"), Free("D"))
    assert [c.text for c in equality_conditions((Free("N"), Free("H"), Free("W")), square)] == [
        "H == W"
    ]
    assert equality_conditions((Free("N"), Free("H"), Free("H")), square) == []


def test_fixed_and_unknown_axes_need_no_condition() -> None:
    square = (Free("D"), Free("D"))
    assert equality_conditions((Fixed(3), Fixed(4)), square) == []
    assert equality_conditions((Free("H"), Unknown("no")), square) == []
    assert [c.text for c in equality_conditions((Fixed(3), Free("W")), square)] == ["3 == W"]
