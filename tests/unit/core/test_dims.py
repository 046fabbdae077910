"""Dims: text and meaning are one to one, and every function has an answer for every kind of dim."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.dims import (
    MAX_SIZES_TO_TRY,
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
    largest_size,
    limits_text,
    parse_dim,
    product,
    sizes_between,
    sizes_outside,
    sizes_to_try,
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


@st.composite
def frees(draw: st.DrawFn) -> Free:
    """Return a free dim that admits a size."""
    low, step = draw(st.integers(1, 40)), draw(st.integers(1, 8))
    span = draw(st.one_of(st.none(), st.integers(1, 5)))
    high = None if span is None else low + span * step
    residues = draw(st.sets(st.integers(0, step - 1), min_size=1))
    return Free("N", low, high, step, tuple(sorted(residues)))


FREES = frees()


@given(FREES)
def test_a_printed_free_dim_is_read_back(dim: Free) -> None:
    assert parse_dim(str(dim)) == dim


@given(FREES, st.integers(1, 100))
def test_an_example_size_is_admitted(dim: Free, near: int) -> None:
    assert admits(dim, example_size(dim, near))


@given(FREES, st.integers(1, 60), st.integers(0, 60))
def test_sizes_between_are_those_that_are_admitted(dim: Free, low: int, span: int) -> None:
    admitted = [size for size in range(low, low + span + 1) if admits(dim, size)]
    assert sizes_between(dim, low, low + span) == admitted


@given(FREES)
def test_sizes_outside_would_be_the_next_ones(dim: Free) -> None:
    lowest = example_size(dim, dim.low)
    without_limits = Free(dim.name, 1, None, dim.step, dim.residues)
    for size in sizes_outside(dim):
        assert not admits(dim, size)
        assert admits(without_limits, size)
        assert not sizes_between(dim, min(size, lowest) + 1, lowest - 1)


def _conditions(dim: Free) -> str:
    """Return the text of a dim that has at least one condition."""
    text = str(dim)
    if text == dim.name:
        return f"{text}>=1"
    return text


@given(FREES, FREES)
def test_joined_conditions_admit_what_both_admit(one: Free, other: Free) -> None:
    both = [size for size in range(1, 400) if admits(one, size) and admits(other, size)]
    text = f"{_conditions(one)} & {_conditions(other)}"
    try:
        dim = parse_dim(text)
    except ValueError:
        assert both == []
        return
    assert [size for size in range(1, 400) if admits(dim, size)] == both


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
    assert admits(dim, size) == (in_range and size % dim.step in dim.residues)


@given(FREES, st.integers(1, 60), st.integers(0, 60))
def test_the_sizes_between_two_sizes_are_all_that_are_admitted(
    dim: Free, low: int, span: int
) -> None:
    high = low + span
    admitted = [size for size in range(low, high + 1) if admits(dim, size)]
    assert sizes_between(dim, low, high) == admitted


@given(FREES)
def test_the_largest_size_is_admitted_and_the_next_ones_are_not(dim: Free) -> None:
    largest = largest_size(dim)
    if largest is not None and dim.high is not None:
        assert admits(dim, largest)
        assert sizes_between(dim, largest + 1, dim.high) == []
    assert not any(admits(dim, size) for size in sizes_outside(dim))


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (Free("N"), ""),
        (Free("D", 8, None, 4), "H//2 >= 8 and H//2 % 4 == 0"),
        (Free("D", 1, 512), "H//2 <= 512"),
        (Free("", 3, 3), "H//2 == 3"),
    ],
    ids=str,
)
def test_the_limits_of_a_dim_are_a_sentence_about_a_subject(dim: Free, text: str) -> None:
    assert limits_text(dim, "H//2") == text


def test_a_sum_is_bracketed_before_a_remainder() -> None:
    assert limits_text(Free("D", step=4), "H + 1") == "(H + 1) % 4 == 0"


def test_merged_axes_have_the_product_of_their_dims() -> None:
    assert str(product((Fixed(64), Free("H"), HALF))) == "64*H*(H//2)"
    assert product((Fixed(4), Fixed(5))) == Fixed(20)
    assert product((Fixed(4), UNTRIED)) is UNTRIED


def test_a_stated_limit_of_a_billion_sizes_is_tried_in_part() -> None:
    tried = sizes_to_try(Free("T", 5, 10**9), 4096)
    assert (tried[0], len(tried)) == (5, MAX_SIZES_TO_TRY + 1)
    assert sizes_to_try(Free("T", 5, 9), 4096) == [5, 6, 7, 8, 9]
    assert sizes_to_try(Free("T", 5), 8) == [5, 6, 7, 8]
