"""Dims: text and meaning are one to one, and the algebra agrees with plain arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.dims import (
    Derived,
    Fixed,
    Free,
    Unknown,
    admits,
    as_dim,
    example_size,
    parse_dim,
)
from composecli.core.size_expr import (
    Const,
    Expr,
    Floor,
    Product,
    Sum,
    Symbol,
    add,
    evaluate,
    floor_divide,
    multiply,
    parse_expr,
    substitute,
    symbols,
)
from tests.reading import lines

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


@pytest.mark.parametrize("line", lines("dims.txt"))
def test_a_dim_is_read_and_printed(line: str) -> None:
    text, _, expected = line.rpartition(" -> ")
    if expected == "error":
        with pytest.raises(ValueError, match=r"dim|size|condition"):
            parse_dim(text)
    else:
        assert str(parse_dim(text)) == expected


@given(EXPRS, SIZES)
def test_simplifying_changes_no_value(expr: Expr, sizes: dict[str, int]) -> None:
    assert evaluate(simplified(expr), sizes) == evaluate(expr, sizes)


@given(EXPRS, SIZES)
def test_what_is_printed_means_the_same(expr: Expr, sizes: dict[str, int]) -> None:
    plain = simplified(expr)
    if isinstance(plain, Const) and plain.value < 0:
        return
    text = str(Derived(plain))
    assert evaluate(parse_expr(text), sizes) == evaluate(expr, sizes), text


@given(EXPRS)
def test_simplifying_twice_is_simplifying_once(expr: Expr) -> None:
    once = simplified(expr)
    assert simplified(once) == once


@given(EXPRS, EXPRS, SIZES)
def test_substituting_is_composing(outer: Expr, inner: Expr, sizes: dict[str, int]) -> None:
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


FREES = st.builds(
    lambda low, span, step: Free("N", low, None if span is None else low + span * step, step),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(1, 5)),
    st.integers(1, 8),
)


@given(FREES)
def test_a_free_dim_reads_back(dim: Free) -> None:
    assert parse_dim(str(dim)) == dim


@given(FREES, st.integers(1, 100))
def test_an_example_size_is_admitted(dim: Free, near: int) -> None:
    assert admits(dim, example_size(dim, near))


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_fixed_dim_admits_its_size_alone(size: int, other: int) -> None:
    assert admits(Fixed(size), other) == (size == other)
    assert admits(Unknown("not tried"), other) is None


def test_plain_expressions_become_plain_dims() -> None:
    assert as_dim(Const(3)) == Fixed(3)
    assert as_dim(Symbol("N")) == Free("N")
    assert symbols(parse_expr("N*T + ceil(H/2)")) == {"N", "T", "H"}
