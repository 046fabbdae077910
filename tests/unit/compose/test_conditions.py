"""Conditions: the sizes at which a producer fits, solved, and the smallest size that does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.compose.conditions import MAX_TRIED_SIZE, equality_conditions, solve_condition
from composecli.core.dims import (
    Derived,
    Fixed,
    Free,
    Unknown,
    admits,
    as_dim,
    parse_dim,
    parse_shape,
)
from composecli.core.size_expr import evaluate, parse_expr
from composecli.inference.size_rules import SizeRule


@pytest.mark.parametrize(
    ("gives", "takes", "text", "fails_at"),
    [
        ("ceil(H/32)", "D>=2", "H>=33", "H = 1, where ceil(H/32) is 1"),
        ("ceil(H/8)", "4", "25<=H<=32", "H = 1, where ceil(H/8) is 1"),
        ("H//16 + 1", "D<=17", "H<=271", "H = 272, where H//16 + 1 is 18"),
        ("2*H", "D%4==0", "H%2==0", "H = 1, where 2*H is 2"),
        ("2*H", "D", None, None),
        ("H", "D%16==0 & D<=64", "H<=64 & H%16==0", "H = 1"),
        ("H>=32", "D>=16", None, None),
        ("H>=32", "D>=33", "H>=33", "H = 32"),
        ("H<=64", "D<=64", None, None),
        ("H%24==0", "D%16==0", "H%48==0", "H = 24"),
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
    assert (found.text if found else None, found.failure if found else None) == (text, fails_at)


def test_the_range_of_the_producers_own_input_counts() -> None:
    assert solve_condition(parse_dim("H//8"), Free("D", 4), {"H": Free("H", 32)}) is None
    found = solve_condition(parse_dim("H//8"), Free("D", 4), {"H": Free("H", 24)})
    assert found is not None
    assert found.failure == "H = 24, where H//8 is 3"


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
    smallest = found.fails_at
    assert smallest == next((n for n, good in enumerate(fits, 1) if not good), smallest)
    assert smallest <= MAX_TRIED_SIZE
    assert [found.fits({"H": size}) for size in range(1, 300)] == fits
    if "//" not in found.text and "ceil" not in found.text and "*" not in found.text:
        # The text is a Python expression that this package wrote.
        holds = [eval(found.text.replace("&", "and"), {"H": size}) for size in range(1, 300)]  # noqa: S307
        assert holds == fits


@pytest.mark.parametrize(
    ("producer", "consumer", "texts"),
    [
        ("N, H, W", "N, D, D", ["H == W"]),
        ("N, H, H", "N, D, D", []),
        # Sizes that follow from the others.
        ("ceil(H/2), ceil(H/4)", "2*D, D", ["H%4 in {0, 3}"]),
        ("H//2, H//4", "2*D, D", ["H%4 in {0, 1}"]),
        ("2*H, H", "2*D, D", []),
        ("H, T", "2*D, D", ["2*T == H"]),
        ("N, T, N + T", "A, B, A + B", []),
        ("64, H", "2*D, D", ["H==32"]),
        ("H>=8, 4", "D + 4, D", ["H<=8"]),
        ("H>=9, 4", "D + 4, D", ["H == 8"]),
        # Nothing can be said without the other axis, or about fixed and unknown sizes.
        ("H", "2*D", []),
        ("3, 4", "D, D", []),
        ("H, ?", "D, D", []),
        ("?, H", "2*D, D", []),
        ("3, W", "D, D", ["W==3"]),
    ],
)
def test_symbols_of_the_consumer_have_one_size(
    producer: str, consumer: str, texts: list[str]
) -> None:
    found = equality_conditions(parse_shape(producer), parse_shape(consumer), {})
    assert [condition.text for condition in found] == texts


@given(
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from(["H", "H + 3", "ceil(H/2)", "3*(H//4)"]),
)
def test_an_equality_holds_exactly_at_the_sizes_that_its_condition_names(
    scale: int, offset: int, producer: str
) -> None:
    first, second = parse_expr("H//2"), parse_expr(producer)
    needed = Derived(parse_expr(f"{scale}*D + {offset}"))
    found = equality_conditions((as_dim(first), as_dim(second)), (Free("D"), needed), {})
    for size in range(1, 300):
        sizes = {"H": size}
        holds = evaluate(second, sizes) == scale * evaluate(first, sizes) + offset
        names = {"H": size, "ceil": math.ceil}
        texts = [condition.text.replace("&", "and") for condition in found]
        said = all(eval(text, names) for text in texts)  # noqa: S307
        assert said == holds
