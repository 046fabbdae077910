"""Sizes that grow evenly with several others are interpolated and factored exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.size_expr import Symbol, evaluate, format_expr
from composecli.inference.multilinear import MAX_VARIABLES, interpolate, to_expr

VARIABLES = {1: Symbol("C"), 2: Symbol("H"), 3: Symbol("W")}
PRODUCTS = [frozenset(text) for text in ([], [1], [2], [3], [1, 2], [1, 3], [2, 3], [1, 2, 3])]
LEVELS = {1: (2, 3), 2: (7, 9), 3: (4, 10)}


@given(st.lists(st.integers(0, 6), min_size=len(PRODUCTS), max_size=len(PRODUCTS)))
def test_the_polynomial_through_the_values_is_found(coefficients: list[int]) -> None:
    def value(sizes: dict[int, int]) -> int:
        total = 0
        for product, coefficient in zip(PRODUCTS, coefficients, strict=True):
            term = coefficient
            for variable in product:
                term *= sizes[variable]
            total += term
        return total

    polynomial = interpolate(LEVELS, lambda point: value(dict(point)))
    assert polynomial is not None
    expr = to_expr(polynomial, VARIABLES)
    for sizes in ({1: 1, 2: 1, 3: 1}, {1: 5, 2: 3, 3: 8}, {1: 0, 2: 2, 3: 7}):
        named = {VARIABLES[number].name: size for number, size in sizes.items()}
        assert evaluate(expr, named) == value(sizes)


@pytest.mark.parametrize(
    ("polynomial", "text"),
    [
        ({(2, 3): 1, (2,): 2, (3,): 2, (): 4}, "(H + 2)*(W + 2)"),
        ({(1, 2): 4, (1, 3): 4}, "4*C*(H + W)"),
        ({(2, 3): 8, (): 8}, "8*H*W + 8"),
        ({(1, 2): 6, (1,): 3}, "3*C*(2*H + 1)"),
        ({(2,): 1, (3,): 1}, "H + W"),
    ],
)
def test_factors_are_taken_out(polynomial: dict[tuple[int, ...], int], text: str) -> None:
    by_product = {frozenset(product): value for product, value in polynomial.items()}
    assert format_expr(to_expr(by_product, VARIABLES)) == text


def test_what_is_not_known_everywhere_is_not_interpolated() -> None:
    assert interpolate(LEVELS, lambda point: None) is None
    assert interpolate({1: (0, 2)}, lambda point: point[1] // 2 * 3) is None
    many = dict.fromkeys(range(MAX_VARIABLES + 1), (1, 2))
    assert interpolate(many, lambda point: 1) is None
