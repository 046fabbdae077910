"""Expressions of several sizes that grow evenly with each of them: interpolated, then factored.

Two pooled sides of an image that are concatenated have `N*C*(H + W)` elements, and a padded image
has `N*(H + 2)*(W + 2)`. Each is a sum of products, in which every size is a factor once at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from itertools import combinations

from composecli.core.size_expr import Const, Expr, add, multiply

# More variables than the axes of an image are not interpolated: each doubles the values.
MAX_VARIABLES = 4

# The coefficient of each product of variables; the variables are axes, by number.
Polynomial = Mapping[frozenset[int], int]
Levels = Mapping[int, tuple[int, int]]


def interpolate(
    levels: Levels, value_at: Callable[[Mapping[int, int]], int | None]
) -> Polynomial | None:
    """Return the polynomial through the values at both levels of each variable.

    None if there are too many variables, if a value is not known, or if the coefficients are no
    integers.
    """
    if len(levels) > MAX_VARIABLES:
        return None
    coefficients: dict[frozenset[int], Fraction] = {}
    for raised in _subsets(levels):
        value = value_at(_point(levels, raised))
        if value is None:
            return None
        coefficients[raised] = Fraction(value)
    for variable, (low, high) in levels.items():
        coefficients = _by_coefficients(coefficients, variable, (low, high))
    if any(coefficient.denominator > 1 for coefficient in coefficients.values()):
        return None
    return {product: int(found) for product, found in coefficients.items() if found}


def _subsets(variables: Iterable[int]) -> list[frozenset[int]]:
    """Return all sets of these variables, the smaller ones first."""
    found = list(variables)
    counts = range(len(found) + 1)
    return [frozenset(chosen) for count in counts for chosen in combinations(found, count)]


def _point(levels: Levels, raised: frozenset[int]) -> dict[int, int]:
    """Return the variables, these at the upper level and the others at the lower one."""
    return {variable: pair[variable in raised] for variable, pair in levels.items()}


def _by_coefficients(
    values: Mapping[frozenset[int], Fraction], variable: int, levels: tuple[int, int]
) -> dict[frozenset[int], Fraction]:
    """Replace the values at both levels of a variable by its constant and its slope."""
    low, high = levels
    found: dict[frozenset[int], Fraction] = {}
    for product in values:
        if variable in product:
            continue
        raised = product | {variable}
        slope = (values[raised] - values[product]) / (high - low)
        found[raised] = slope
        found[product] = values[product] - slope * low
    return found


def to_expr(polynomial: Polynomial, variables: Mapping[int, Expr]) -> Expr:
    """Return the polynomial as an expression, with a factor for each variable that is one.

    `H*W + 2*H + 2*W + 4` is `(H + 2)*(W + 2)`.
    """
    factors = list[Expr]()
    for variable, expr in variables.items():
        split = _without_factor(polynomial, variable)
        if split is not None:
            scale, shift, polynomial = split
            factors.append(add(multiply(Const(scale), expr), Const(shift)))
    common = math.gcd(*polynomial.values()) or 1
    terms = list[Expr]()
    for product, coefficient in polynomial.items():
        parts = [variables[variable] for variable in sorted(product)]
        terms.append(multiply(Const(coefficient // common), *parts))
    return multiply(Const(common), *factors, add(*terms))


def _without_factor(
    polynomial: Polynomial, variable: int
) -> tuple[int, int, dict[frozenset[int], int]] | None:
    """Return the scale and the shift of a factor in one variable, and the cofactor.

    None if the variable is in no such factor.
    """
    slope = {product - {variable}: value for product, value in _having(polynomial, variable)}
    constant = {product: value for product, value in polynomial.items() if variable not in product}
    if not slope or not (slope.keys() >= constant.keys()):
        return None
    ratios = {Fraction(constant.get(product, 0), value) for product, value in slope.items()}
    if len(ratios) != 1:
        return None
    ratio = ratios.pop()
    scale, shift = ratio.denominator, ratio.numerator
    if any(value % scale for value in slope.values()):
        return None
    return scale, shift, {product: value // scale for product, value in slope.items()}


def _having(polynomial: Polynomial, variable: int) -> list[tuple[frozenset[int], int]]:
    """Return the products with this variable, and their coefficients."""
    return [(product, value) for product, value in polynomial.items() if variable in product]
