"""Dims: text and meaning are one to one, and every function has an answer for every kind of dim."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.dims import (
    Derived,
    Dim,
    Fixed,
    Free,
    Unknown,
    admits,
    as_dim,
    as_expr,
    as_free,
    bounds,
    example_size,
    fixed_size,
    free_dims,
    is_variable,
    parse_dim,
    unknown_reason,
)
from composecli.core.size_expr import Const, Expr, Symbol, parse_expr
from tests.parsing import lines

H = Free("H", 32, None, 4)
HALF = Derived(parse_expr("H//2"))
UNTRIED = Unknown("not tried")


@pytest.mark.parametrize("line", lines("dims.txt"))
def test_a_dim_is_parsed_and_printed(line: str) -> None:
    text, _, expected = line.rpartition(" -> ")
    if expected == "error":
        with pytest.raises(ValueError, match=r"dim|size|condition"):
            parse_dim(text)
    else:
        assert str(parse_dim(text)) == expected


FREES = st.builds(
    lambda low, span, step: Free("N", low, None if span is None else low + span * step, step),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(1, 5)),
    st.integers(1, 8),
)


@given(FREES)
def test_a_printed_free_dim_is_read_back(dim: Free) -> None:
    assert parse_dim(str(dim)) == dim


@given(FREES, st.integers(1, 100))
def test_an_example_size_is_admitted(dim: Free, near: int) -> None:
    assert admits(dim, example_size(dim, near))


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_fixed_dim_admits_only_its_size(size: int, other: int) -> None:
    assert admits(Fixed(size), other) == (size == other)
    assert admits(Unknown("not tried"), other) is None


def test_plain_expressions_become_plain_dims() -> None:
    assert as_dim(Const(3)) == Fixed(3)
    assert as_dim(Symbol("N")) == Free("N")
    assert as_dim(parse_expr("H//2")) == HALF


@pytest.mark.parametrize(
    ("dim", "size", "free", "variable", "reason", "limits", "expr"),
    [
        (Fixed(3), 3, None, False, None, Free("", 3, 3), Const(3)),
        (H, None, H, True, None, H, Symbol("H")),
        (HALF, None, None, True, None, None, HALF.expr),
        (UNTRIED, None, None, True, "not tried", None, None),
    ],
)
def test_each_kind_of_dim_has_its_answers(
    dim: Dim,
    size: int | None,
    free: Free | None,
    variable: bool,
    reason: str | None,
    limits: Free | None,
    expr: Expr | None,
) -> None:
    assert fixed_size(dim) == size
    assert as_free(dim) == free
    assert is_variable(dim) is variable
    assert unknown_reason(dim) == reason
    assert bounds(dim) == limits
    assert as_expr(dim) == expr


def test_the_free_dims_of_a_shape_are_found_in_order() -> None:
    assert list(free_dims((Free("N"), Fixed(3), HALF, UNTRIED, H))) == [Free("N"), H]


@given(FREES, st.integers(1, 200))
def test_a_dim_admits_the_sizes_in_its_bounds(dim: Free, size: int) -> None:
    in_range = dim.low <= size and (dim.high is None or size <= dim.high)
    assert admits(dim, size) == (in_range and size % dim.step == 0)
