"""Conditions: the sizes of its own input at which a producer fits the consumer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from composecli.core.dims import (
    Dim,
    Free,
    admits,
    as_expr,
    as_free,
    bounds,
    free_dims,
    is_variable,
    limits_text,
    sizes_between,
)
from composecli.core.size_expr import Expr, Symbol, evaluate, format_expr, substitute, symbols

# The largest size that is tried. A condition that holds up to it is assumed to hold beyond.
MAX_TRIED_SIZE = 4096
# The largest step of sizes that are described by their remainders.
MAX_STEP = 64


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition in the producer's symbols, and the smallest size that fails it, if known."""

    text: str
    fails_at: str | None = None


def solve_condition(producer: Dim, consumer: Dim, ranges: Mapping[str, Free]) -> Condition | None:
    """Return the condition under which the consumer accepts the producer's dim; None if always.

    `ceil(H/32)` fits `D>=2` if `H >= 33`, and fails at `H = 1`, for which it is 1. `ranges` are the
    free dims of the producer's own input: if `H` starts at 33, there is no condition. Nor is there
    one if the producer's dim has one size only, or if either dim is unknown.
    """
    expr = as_expr(producer)
    if expr is None or not is_variable(producer) or bounds(consumer) is None:
        return None
    names = sorted(symbols(expr))
    if len(names) != 1:
        text = _describe_limits(format_expr(expr), consumer)
        if not text:
            return None
        return Condition(text)
    name = names[0]
    own = as_free(producer)
    if own is None:
        own = ranges.get(name, Free(name))
    return _solve_for(name, expr, consumer, own)


def _solve_for(name: str, expr: Expr, consumer: Dim, own: Free) -> Condition | None:
    """Try the sizes of `own`, the symbol of `expr`, and return those that the consumer admits."""
    sizes = sizes_between(own, own.low, own.high or MAX_TRIED_SIZE)
    fitting = list[int]()
    failing = list[int]()
    for size in sizes:
        value = evaluate(expr, {name: size})
        if admits(consumer, value):
            fitting.append(size)
        else:
            failing.append(size)
    if not failing:
        return None
    subject = format_expr(expr)
    text = describe_sizes(name, fitting, sizes)
    if not text:
        text = _describe_limits(subject, consumer)
    first = failing[0]
    fails_at = f"{name} = {first}"
    if expr != Symbol(name):
        value = evaluate(expr, {name: first})
        fails_at += f", where {subject} is {value}"
    return Condition(text, fails_at)


def describe_sizes(name: str, fitting: list[int], sizes: list[int]) -> str | None:
    """Describe the fitting sizes as a range, or by their remainders; None if they are neither.

    A limit is omitted if all `sizes` have the same one.
    """
    if not fitting:
        return None
    low, high = fitting[0], fitting[-1]
    without_gaps = [size for size in sizes if low <= size <= high]
    if fitting == without_gaps:
        return _describe_range(name, low, high, sizes)
    smallest_gap = min(second - first for first, second in pairwise(fitting))
    for step in (smallest_gap, *range(2, MAX_STEP + 1)):
        residues = {size % step for size in fitting}
        alike = [size for size in sizes if size % step in residues]
        if fitting != [size for size in alike if low <= size <= high]:
            continue
        pattern = limits_text(Free(name, step=step, residues=tuple(sorted(residues))), name)
        limits = _describe_range(name, low, high, alike)
        return " and ".join(filter(None, (pattern, limits)))
    return None


def _describe_range(name: str, low: int, high: int, sizes: list[int]) -> str:
    """Describe the range from `low` to `high`; empty if all `sizes` are in it."""
    has_low = low != sizes[0]
    has_high = high != sizes[-1]
    if has_low and has_high and low == high:
        return f"{name} == {low}"
    parts = list[str]()
    if has_low:
        parts.append(f"{name} >= {low}")
    if has_high:
        parts.append(f"{name} <= {high}")
    return " and ".join(parts)


def _describe_limits(subject: str, consumer: Dim) -> str:
    """Describe the sizes that the consumer accepts; empty if it accepts every size."""
    limits = bounds(consumer)
    if limits is None:
        return ""
    return limits_text(limits, subject)


def equality_conditions(
    producer: Iterable[Dim], consumer: Iterable[Dim], ranges: Mapping[str, Free]
) -> list[Condition]:
    """Return the conditions under which the symbols of the consumer have one size each.

    A consumer of `(N, D, D)` accepts `(N, H, W)` only if `H == W`, and one of `(N, 2*D, D)` only if
    `H == 2*W`. `ranges` are the free dims of the producer's own input.
    """
    axes = list(zip(producer, consumer, strict=True))
    first_dims = dict[str, Dim]()
    known = dict[str, Expr]()
    for dim, consumer_dim in axes:
        free = as_free(consumer_dim)
        expr = as_expr(dim)
        if free is not None and expr is not None:
            first_dims.setdefault(free.name, dim)
            known.setdefault(free.name, expr)
    own = {**ranges, **{free.name: free for free in free_dims(dim for dim, _ in axes)}}
    conditions = list[Condition]()
    for dim, consumer_dim in axes:
        needed = as_expr(consumer_dim)
        if needed is None or not symbols(needed) or not symbols(needed) <= known.keys():
            continue
        others = [first_dims[name] for name in symbols(needed)]
        left, right = substitute(needed, known), as_expr(dim)
        if right is None or left == right or not any(map(is_variable, (dim, *others))):
            continue
        condition = _solve_equality(left, right, own)
        if condition is not None:
            conditions.append(condition)
    return conditions


def _solve_equality(left: Expr, right: Expr, ranges: Mapping[str, Free]) -> Condition | None:
    """Return the condition under which two expressions are equal; None if they always are."""
    text = f"{format_expr(left)} == {format_expr(right)}"
    names = symbols(left) | symbols(right)
    if len(names) != 1:
        return Condition(text)
    (name,) = names
    own = ranges.get(name, Free(name))
    sizes = sizes_between(own, own.low, own.high or MAX_TRIED_SIZE)
    fitting = list[int]()
    failing = list[int]()
    for size in sizes:
        if evaluate(left, {name: size}) == evaluate(right, {name: size}):
            fitting.append(size)
        else:
            failing.append(size)
    if not failing:
        return None
    described = describe_sizes(name, fitting, sizes) or text
    return Condition(described, f"{name} = {failing[0]}")
