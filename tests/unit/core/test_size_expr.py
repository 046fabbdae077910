"""Size expressions: the algebra agrees with integer arithmetic, and text is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.size_expr import (
    Const,
    Expr,
    Floor,
    Product,
    Sum,
    Symbol,
    add,
    ceil_divide,
    evaluate,
    floor_divide,
    format_expr,
    multiply,
    parse_expr,
    substitute,
    symbols,
)

NAMES = ("H", "N", "W")
SIZES = st.fixed_dictionaries({name: st.integers(0, 60) for name in NAMES})


def _grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Sum(tuple(parts))),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: Product(tuple(parts))),
        st.builds(Floor, inner, st.integers(1, 9)),
    )


LEAVES: st.SearchStrategy[Expr] = st.one_of(
    st.integers(-5, 9).map(Const), st.sampled_from(NAMES).map(Symbol)
)
EXPRS = st.recursive(LEAVES, _grow, max_leaves=8)


def simplified(expr: Expr) -> Expr:
    return substitute(expr, {})


@given(EXPRS, SIZES)
def test_simplifying_does_not_change_the_value(expr: Expr, sizes: dict[str, int]) -> None:
    assert evaluate(simplified(expr), sizes) == evaluate(expr, sizes)


@given(EXPRS, SIZES)
def test_the_printed_expression_has_the_same_value(expr: Expr, sizes: dict[str, int]) -> None:
    plain = simplified(expr)
    if isinstance(plain, Const) and plain.value < 0:
        return
    text = format_expr(plain)
    assert evaluate(parse_expr(text), sizes) == evaluate(expr, sizes), text


@given(EXPRS)
def test_simplifying_twice_is_simplifying_once(expr: Expr) -> None:
    once = simplified(expr)
    assert simplified(once) == once


@given(EXPRS, EXPRS, SIZES)
def test_substitution_is_composition(outer: Expr, inner: Expr, sizes: dict[str, int]) -> None:
    composed = substitute(outer, {"H": inner})
    assert evaluate(composed, sizes) == evaluate(outer, {**sizes, "H": evaluate(inner, sizes)})


@given(EXPRS, st.integers(1, 9), SIZES)
def test_division_rounds_down(expr: Expr, by: int, sizes: dict[str, int]) -> None:
    assert evaluate(floor_divide(simplified(expr), by), sizes) == evaluate(expr, sizes) // by


@given(EXPRS, EXPRS)
def test_sums_and_products_do_not_depend_on_order(one: Expr, other: Expr) -> None:
    one, other = simplified(one), simplified(other)
    assert add(one, other) == add(other, one)
    assert multiply(one, other) == multiply(other, one)


def test_all_symbols_of_an_expression_are_found() -> None:
    assert symbols(parse_expr("N*T + ceil(H/2)")) == {"N", "T", "H"}
    assert symbols(Const(3)) == frozenset()


def test_a_symbol_without_a_size_is_an_error() -> None:
    with pytest.raises(KeyError, match="W"):
        evaluate(parse_expr("H + W"), {"H": 3})


@pytest.mark.parametrize("denominator", [0, -1])
def test_a_size_is_divided_by_a_positive_number_only(denominator: int) -> None:
    with pytest.raises(ValueError, match="divided"):
        floor_divide(Symbol("H"), denominator)


@given(EXPRS, st.integers(1, 9), SIZES)
def test_ceil_division_rounds_up(expr: Expr, by: int, sizes: dict[str, int]) -> None:
    quotient = evaluate(ceil_divide(simplified(expr), by), sizes)
    assert quotient == -(-evaluate(expr, sizes) // by)


def test_a_chain_of_strides_is_one_division() -> None:
    stem = parse_expr("ceil(H/2)")
    head = parse_expr("ceil(X/2)")
    assert format_expr(substitute(head, {"X": stem})) == "ceil(H/4)"
