"""Conditions: the sizes of its own input at which a producer fits the consumer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, product
from typing import assert_never

from composecli.core.dims import (
    Dim,
    Free,
    admits,
    admits_every_size,
    as_expr,
    as_free,
    bounds,
    example_size,
    free_dims,
    intersect,
    is_variable,
    limits_text,
    sizes_to_try,
)
from composecli.core.relations import Comparison, Relation, relate
from composecli.core.size_expr import (
    Const,
    Expr,
    Symbol,
    add,
    evaluate,
    format_expr,
    multiply,
    split_factor,
    substitute,
    symbols,
)

# The largest size that is tried. A condition that holds up to it is assumed to hold beyond, unless
# the limits of the consumer are only reached there: those of a waveform are.
MAX_TRIED_SIZE = 4096
MAX_REACHED_SIZE = 1 << 16
# The largest step of sizes that are described by their remainders.
MAX_STEP = 64
# Starts the name of the dim of a difference. It is 1 for equal sizes, because sizes start there.
_DIFFERENCE = "-"

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on the sizes of the producer's input: the consumer takes the value of `expr`.

    `text` states it. If it is about one symbol, `dim` has the sizes of it that fit, if there is a
    form for them, `fitting_count` is the number of those that were tried, and `fails_at` is the
    smallest size that does not fit. `relation` is the text of one that allows other sizes, too.
    """

    expr: Expr
    takes: Free
    text: str
    dim: Free | None = None
    fails_at: int | None = None
    fitting_count: int = 0
    relation: str = ""

    def fits(self, sizes: Sizes) -> bool:
        """Return whether it is met at these sizes."""
        return admits(self.takes, evaluate(self.expr, sizes)) is True

    @property
    def failure(self) -> str | None:
        """The smallest size that fails: `H = 1, where ceil(H/32) is 1`; None if it is not known."""
        name = self.name
        if name is None or self.fails_at is None:
            return None
        failure = f"{name} = {self.fails_at}"
        is_derived = symbols(self.expr) == {name} and self.expr != Symbol(name)
        if not is_derived or self.is_difference:
            return failure
        value = evaluate(self.expr, {name: self.fails_at})
        return f"{failure}, where {format_expr(self.expr)} is {value}"

    @property
    def is_difference(self) -> bool:
        """Whether `expr` is the difference of two sizes, whose value means nothing to a reader."""
        return self.takes.name.startswith(_DIFFERENCE)

    @property
    def name(self) -> str | None:
        """The symbol that it is about; None if it is about several."""
        if self.dim is not None:
            return self.dim.name
        names = list(symbols(self.expr))
        if len(names) == 1:
            return names[0]
        return None

    @property
    def is_never_met(self) -> bool:
        """Whether no size meets it."""
        if not symbols(self.expr):
            return not self.fits({})
        return self.why_never is not None

    @property
    def why_never(self) -> str | None:
        """Why no size meets it: `7*H*W is never 1024`; None if one may."""
        if not symbols(self.expr):
            return None
        size, (scale, _) = self.takes.low, split_factor(self.expr)
        if size == self.takes.high and size % scale != 0:
            return f"{format_expr(self.expr)} is never {size}"
        if self.dim is None and len(symbols(self.expr)) == 1 and self.fitting_count == 0:
            return f"no size of {self.name} has {self.text}"
        return None


def solve_condition(producer: Dim, consumer: Dim, ranges: Mapping[str, Free]) -> Condition | None:
    """Return the condition under which the consumer accepts the producer's dim; None if always.

    `ceil(H/32)` fits `D>=2` if `H>=33`, and fails at `H = 1`, for which it is 1. `ranges` are the
    free dims of the producer's own input: if `H` starts at 33, there is no condition. Nor is there
    one if the producer's dim has one size only, or if either dim is unknown.
    """
    expr, takes = as_expr(producer), bounds(consumer)
    if expr is None or takes is None or not is_variable(producer):
        return None
    text = limits_text(takes, format_expr(expr))
    names = sorted(symbols(expr))
    if len(names) != 1:
        if not text:
            return None
        return Condition(expr, takes, text)
    own = as_free(producer) or ranges.get(names[0], Free(names[0]))
    return _solve_for(expr, takes, own, text)


@lru_cache(maxsize=512)
def _solve_for(expr: Expr, takes: Free, own: Free, text: str) -> Condition | None:
    """Try the sizes of `own`, the symbol of `expr`, and return those that the consumer admits.

    `text` states the condition if the sizes that fit are neither a range nor have a step.
    """
    sizes = sizes_to_try(own, largest_tried(expr, takes, own))
    fitting, failing = list[int](), list[int]()
    for size in sizes:
        fits = admits(takes, evaluate(expr, {own.name: size}))
        (fitting if fits else failing).append(size)
    if not failing:
        return None
    dim = _as_dim(own.name, fitting, sizes)
    if dim is None:
        return Condition(expr, takes, text, None, failing[0], len(fitting))
    return Condition(expr, takes, str(dim), dim, failing[0], len(fitting))


def largest_tried(expr: Expr, takes: Free, own: Free) -> int:
    """Return the largest size to try: beyond the last one at which `expr` reaches a limit."""
    largest = MAX_TRIED_SIZE
    for limit in (takes.low, takes.high):
        if limit is None:
            continue
        reached = _first_reaching(expr, limit + 1, own)
        if reached is not None and reached >= largest:
            largest = reached + MAX_STEP
    return largest


def _first_reaching(expr: Expr, value: int, own: Free) -> int | None:
    """Return the smallest size at which a growing `expr` has this value; None if that is far."""
    low, high = own.low, MAX_REACHED_SIZE
    if evaluate(expr, {own.name: high}) < value:
        return None
    while low < high:
        middle = (low + high) // 2
        if evaluate(expr, {own.name: middle}) < value:
            low = middle + 1
        else:
            high = middle
    return high


def _as_dim(name: str, fitting: list[int], sizes: list[int]) -> Free | None:
    """Return the fitting sizes as a range, or by their remainders; None if they are neither.

    A limit is omitted if all `sizes` have the same one.
    """
    if not fitting:
        return None
    low, high = fitting[0], fitting[-1]
    without_gaps = [size for size in sizes if low <= size <= high]
    if fitting == without_gaps:
        return _with_limits(Free(name), low, high, sizes)
    smallest_gap = min(second - first for first, second in pairwise(fitting))
    for step in (smallest_gap, *range(2, MAX_STEP + 1)):
        residues = {size % step for size in fitting}
        alike = [size for size in sizes if size % step in residues]
        if fitting != [size for size in alike if low <= size <= high]:
            continue
        pattern = Free(name, step=step, residues=tuple(sorted(residues)))
        return _with_limits(pattern, low, high, alike)
    return None


def _with_limits(pattern: Free, low: int, high: int, sizes: list[int]) -> Free:
    """Return the pattern from `low` to `high`, without a limit that all `sizes` have."""
    if low != sizes[0]:
        pattern = replace(pattern, low=low)
    if high != sizes[-1]:
        pattern = replace(pattern, high=high)
    return pattern


def beyond(dim: Free, own: Free) -> Free | None:
    """Return the part of a dim that excludes sizes of `own`; None if it excludes none."""
    if dim.low <= own.low:
        dim = replace(dim, low=1)
    if dim.high == own.high:
        dim = replace(dim, high=None)
    if (dim.step, dim.residues) == (own.step, own.residues):
        dim = replace(dim, step=1, residues=(0,))
    if admits_every_size(dim):
        return None
    return dim


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
        condition = solve_equality(left, right, own)
        if condition is not None:
            conditions.append(condition)
    return conditions


def solve_equality(left: Expr, right: Expr, ranges: Mapping[str, Free]) -> Condition | None:
    """Return the condition under which two expressions are equal; None if they always are."""
    return solve_relation(relate(left, Comparison.EQUALS, right), ranges)


def solve_relation(relation: Relation, ranges: Mapping[str, Free]) -> Condition | None:
    """Return the condition under which a relation holds; None if it always does.

    `C*L == 1024` with 16 for `C` is `L==64`. `ranges` are the free dims that it relates.
    """
    expr, takes = limits_of(relation)
    names = symbols(expr)
    if not names and admits(takes, evaluate(expr, {})):
        return None
    if len(names) != 1:
        return Condition(expr, takes, str(relation))
    (name,) = names
    return _solve_for(expr, takes, ranges.get(name, Free(name)), str(relation))


def limits_of(relation: Relation) -> tuple[Expr, Free]:
    """Return an expression, and the sizes that it has where the relation holds.

    For `T<=S` they are `S - T + 1`, and all sizes from 1.
    """
    number, text = relation.number, str(relation)
    difference = add(relation.left, multiply(Const(-1), relation.right), Const(1))
    match relation.comparison:
        case Comparison.MULTIPLE_OF:
            return relation.left, Free(text, 0, step=number or 1)
        case Comparison.EQUALS if number is not None and number > 0:
            return relation.left, Free(text, number, number)
        case Comparison.EQUALS:
            return difference, Free(_DIFFERENCE + text, 1, 1)
        case Comparison.AT_MOST:
            reversed_difference = add(relation.right, multiply(Const(-1), relation.left), Const(1))
            return reversed_difference, Free(_DIFFERENCE + text)
        case _:
            assert_never(relation.comparison)


def for_each_side(
    condition: Condition, ranges: Mapping[str, Free], sizes: Sizes
) -> list[Condition]:
    """Return a relation of the two equal sides of an image as a condition on each of them.

    `16*ceil(H/4)*ceil(W/4) == 1024` holds beside `W = 32` if `29<=H<=32`, and likewise for `W`.
    The condition itself is returned if their ends do not hold together.
    """
    names = sorted(symbols(condition.expr))
    if len(names) != 2 or not set(names) <= sizes.keys() or not condition.fits(sizes):
        return [condition]
    if condition.is_difference or sizes[names[0]] != sizes[names[1]]:
        return [condition]
    sides = list(_sides(condition, names, ranges, sizes))
    if len(sides) != len(names):
        return [condition]
    ends = [_ends(side) for side in sides]
    corners = [dict(zip(names, corner, strict=True)) for corner in product(*ends)]
    if corners and all(condition.fits({**sizes, **corner}) for corner in corners):
        return sides
    return [condition]


def _sides(
    condition: Condition, names: list[str], ranges: Mapping[str, Free], sizes: Sizes
) -> Iterator[Condition]:
    """Yield the condition on each symbol, beside the size of the other one."""
    for name in names:
        others = {other: Const(sizes[other]) for other in names if other != name}
        expr = substitute(condition.expr, others)
        own = ranges.get(name, Free(name))
        side = _solve_for(expr, condition.takes, own, condition.text)
        if side is not None:
            yield replace(side, expr=condition.expr, relation=condition.text)


def _ends(condition: Condition) -> tuple[int, ...]:
    """Return the smallest and the largest size that fit; none if there is no largest one."""
    dim = condition.dim
    if dim is None or dim.high is None:
        return ()
    return (example_size(dim, dim.low), example_size(dim, dim.high))


def conditions_of(
    producer: Iterable[Dim], consumer: Iterable[Dim], ranges: Mapping[str, Free], sizes: Sizes
) -> list[Condition]:
    """Return the conditions on each axis, and then those on several axes together.

    `sizes` are those of the example, next to which a relation of the sides of an image is stated.
    """
    axes = list(zip(producer, consumer, strict=True))
    conditions = list[Condition]()
    for dim, needed in axes:
        condition = solve_condition(dim, needed, ranges)
        if condition is not None:
            conditions += for_each_side(condition, ranges, sizes)
    given, taken = [dim for dim, _ in axes], [needed for _, needed in axes]
    conditions += equality_conditions(given, taken, ranges)
    return conditions


def combined(conditions: Iterable[Condition]) -> Iterator[str]:
    """Yield the text of each condition, and one text for all those of one symbol."""
    by_name = dict[str, Free]()
    relations = dict[str, None]()
    for condition in conditions:
        dim = condition.dim
        if dim is None:
            relations[condition.text] = None
            continue
        known = by_name.get(dim.name, dim)
        both = intersect(known, dim)
        if both is None:
            relations[condition.text] = None
        else:
            by_name[dim.name] = both
    for dim in by_name.values():
        yield str(_without_idle_limit(dim))
    yield from relations


def _without_idle_limit(dim: Free) -> Free:
    """Return the dim without a lower limit that its step implies: `H>=2 & H%2==0`."""
    pattern = replace(dim, low=1)
    if example_size(pattern, 1) >= dim.low:
        return pattern
    return dim
