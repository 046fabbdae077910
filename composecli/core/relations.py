"""Relations: what several dims of a contract have to meet together.

Text and meaning are one to one: `parse_relation(str(relation)) == relation`.

    C*H*W == 1024         an equality
    N*C*H*W % 1024 == 0   the left side is a multiple of the right one
    T<=S                  an inequality

Both sides are expressions of dims, in lowest terms: `2*T == 2*S` is `T == S`, and `S>=T` is `T<=S`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice, permutations, product
from typing import assert_never

from composecli.core.dims import Free, admits, example_size, sizes_between
from composecli.core.size_expr import (
    Const,
    Expr,
    Sum,
    add,
    evaluate,
    format_expr,
    multiply,
    parse_expr,
    split_factor,
    substitute,
    symbols,
)

# The largest sizes that are tried: of one dim alone, and of two at once.
MAX_TRIED_SIZE = 4096
MAX_TRIED_PAIR = (32, 512)
# Enough for all pairs of five dims.
MAX_TRIES = 350_000
_SIGN = re.compile(r"(==|<=|>=|<|>)")
_EXAMPLES = "as in C*H*W == 1024, T*F % 16 == 0, T<=S"


class Comparison(StrEnum):
    """How the left side of a relation is compared with the right one."""

    EQUALS = "=="
    AT_MOST = "<="
    MULTIPLE_OF = "%"


@dataclass(frozen=True, slots=True)
class Relation:
    """A comparison of two size expressions. Make one with `relate`, which brings it in one form."""

    left: Expr
    comparison: Comparison
    right: Expr

    def __str__(self) -> str:
        left, right = format_expr(self.left), format_expr(self.right)
        match self.comparison:
            case Comparison.EQUALS:
                return f"{left} == {right}"
            case Comparison.AT_MOST if " " in left + right:
                return f"{left} <= {right}"
            case Comparison.AT_MOST:
                return f"{left}<={right}"
            case Comparison.MULTIPLE_OF:
                if isinstance(self.left, Sum):
                    left = f"({left})"
                return f"{left} % {right} == 0"
            case _:
                assert_never(self.comparison)

    @property
    def symbols(self) -> frozenset[str]:
        """The names of the dims that it relates."""
        return symbols(self.left) | symbols(self.right)

    @property
    def number(self) -> int | None:
        """The right side if it is a number: 1024 of `C*H*W == 1024`."""
        if isinstance(self.right, Const):
            return self.right.value
        return None


Where = tuple[Relation, ...]


def relate(left: Expr, comparison: Comparison, right: Expr) -> Relation:
    """Return the relation in lowest terms.

    `16*H*W == 1024` is `H*W == 64`, and `6*T % 16 == 0` is `T % 8 == 0`. A number is on the right
    side of an equality.

    Raises:
        ValueError: if a multiple of another thing than a positive number is asked for.
    """
    match comparison:
        case Comparison.MULTIPLE_OF:
            return _multiple(left, right)
        case Comparison.EQUALS:
            left, right = _without_common_factor(left, right)
            if _order(left) > _order(right):
                left, right = right, left
        case Comparison.AT_MOST:
            left, right = _without_common_factor(left, right)
        case _:
            assert_never(comparison)
    return Relation(left, comparison, right)


def _multiple(left: Expr, right: Expr) -> Relation:
    """Return the relation that `left` is a multiple of `right`, in lowest terms."""
    if not isinstance(right, Const) or right.value < 1:
        raise ValueError(f"a size is divided by {format_expr(right)}")
    scale, factor = split_factor(left)
    # What is left of the scale has no divisor in common with that of the relation.
    divisor = right.value // math.gcd(scale, right.value)
    return Relation(factor, Comparison.MULTIPLE_OF, Const(divisor))


def _without_common_factor(left: Expr, right: Expr) -> tuple[Expr, Expr]:
    """Divide both sides by the largest number that divides both."""
    left_scale, left_factor = split_factor(left)
    right_scale, right_factor = split_factor(right)
    common = math.gcd(left_scale, right_scale)
    if common < 2:
        return left, right
    left = multiply(Const(left_scale // common), left_factor)
    return left, multiply(Const(right_scale // common), right_factor)


def _order(expr: Expr) -> tuple[bool, str]:
    """Order the sides of an equality by their text, with a number last."""
    return (isinstance(expr, Const), format_expr(expr))


def holds(relation: Relation, sizes: Mapping[str, int]) -> bool:
    """Return whether the relation holds at these sizes; KeyError if one of its dims has none."""
    left, right = evaluate(relation.left, sizes), evaluate(relation.right, sizes)
    match relation.comparison:
        case Comparison.EQUALS:
            return left == right
        case Comparison.AT_MOST:
            return left <= right
        case Comparison.MULTIPLE_OF:
            return left % right == 0
        case _:
            assert_never(relation.comparison)


def all_hold(relations: Iterable[Relation], sizes: Mapping[str, int]) -> bool:
    """Return whether each relation holds at these sizes. One of a dim without a size does not."""
    for relation in relations:
        if not relation.symbols <= sizes.keys() or not holds(relation, sizes):
            return False
    return True


def sizes_meeting(
    where: Where, ranges: Mapping[str, Free], start: Mapping[str, int]
) -> dict[str, int] | None:
    """Return sizes of the dims at which all relations hold, near these; None if none are found.

    One size is changed if that is enough, or else two, or else all others are as small as they may
    be. `ranges` are the dims that may change.
    """
    if not all(relation.symbols <= start.keys() for relation in where):
        return None
    smallest = {name: example_size(ranges[name], 1) for name in _related(where, ranges)}
    tried = chain(
        [start],
        _one_changed(where, ranges, start),
        _two_changed(where, ranges, start),
        _one_changed(where, ranges, {**start, **smallest}),
    )
    for sizes in islice(tried, MAX_TRIES):
        if all_hold(where, sizes):
            return dict(sizes)
    return None


def _related(where: Where, ranges: Mapping[str, Free]) -> list[str]:
    """Return the names of the dims that may change and that a relation is about."""
    return [name for name in ranges if any(name in relation.symbols for relation in where)]


def _one_changed(
    where: Where, ranges: Mapping[str, Free], start: Mapping[str, int]
) -> Iterator[Mapping[str, int]]:
    """Yield the sizes with one of them changed, the nearest first."""
    for name in _related(where, ranges):
        for size in _nearest_sizes(ranges[name], start[name], MAX_TRIED_SIZE):
            yield {**start, name: size}


def _two_changed(
    where: Where, ranges: Mapping[str, Free], start: Mapping[str, int]
) -> Iterator[Mapping[str, int]]:
    """Yield the sizes with two of them changed."""
    most, most_of_other = MAX_TRIED_PAIR
    for one, other in permutations(_related(where, ranges), 2):
        pairs = product(
            _nearest_sizes(ranges[one], start[one], most),
            _nearest_sizes(ranges[other], start[other], most_of_other),
        )
        for size, other_size in pairs:
            yield {**start, one: size, other: other_size}


def other_sizes_meeting(
    where: Where, ranges: Mapping[str, Free], sizes: Mapping[str, int]
) -> Iterator[dict[str, int]]:
    """Yield other sizes at which all relations hold: each related dim has one of its own.

    From `C = 16, H = 8, W = 8` of `C*H*W == 1024`, they are `C = 32, H = 4, W = 8` and others.
    """
    related = frozenset[str]().union(*(relation.symbols for relation in where))
    for name in sorted(related & ranges.keys()):
        others = {other: ranges[other] for other in related & ranges.keys() if other != name}
        # Of one related dim alone, another size is near the one that is asked for.
        changing = others or {name: ranges[name]}
        for size in (2 * sizes[name], example_size(ranges[name], 1)):
            if not admits(ranges[name], size) or size == sizes[name]:
                continue
            found = sizes_meeting(where, changing, {**sizes, name: size})
            if found is not None and found[name] != sizes[name]:
                yield found


def _nearest_sizes(dim: Free, near: int, most: int) -> list[int]:
    """Return the sizes that the dim admits, the nearest first."""
    return sorted(sizes_between(dim, 1, most), key=lambda size: abs(size - near))


def substitute_relation(relation: Relation, by: Mapping[str, Expr]) -> Relation:
    """Replace the symbols that `by` names: `C*H*W == 1024` with 16 for `C` is `H*W == 64`."""
    left, right = substitute(relation.left, by), substitute(relation.right, by)
    return relate(left, relation.comparison, right)


def format_where(relations: Iterable[Relation]) -> str:
    """Return relations as text: ` where C*H*W == 1024 and T<=S`; empty if there are none."""
    text = " and ".join(map(str, relations))
    if not text:
        return ""
    return f" where {text}"


def parse_where(text: str) -> Where:
    """Parse relations that are joined by `and`.

    Raises:
        ValueError: if one of them is not a relation; the message is written for users.
    """
    parts = re.split(r"\band\b", text)
    return tuple(map(parse_relation, parts))


def parse_relation(text: str) -> Relation:
    """Parse `C*H*W == 1024`, `T*F % 16 == 0` or `T<=S`.

    `S>=T` is read as `T<=S`, and `T<S` as `T + 1 <= S`.

    Raises:
        ValueError: if the text is not a relation; the message is written for users.
    """
    parts = _SIGN.split(text)
    if len(parts) != 3:
        raise ValueError(f"not a relation of dims: {text.strip()} ({_EXAMPLES})")
    left_text, sign, right_text = parts
    if "%" in left_text:
        return _parse_multiple(text, left_text, sign, right_text)
    left, right = parse_expr(left_text), parse_expr(right_text)
    if sign in (">=", ">"):
        left, right = right, left
    if sign == "==":
        return relate(left, Comparison.EQUALS, right)
    if sign in ("<", ">"):
        left = add(left, Const(1))
    return relate(left, Comparison.AT_MOST, right)


def _parse_multiple(text: str, left: str, sign: str, right: str) -> Relation:
    """Parse the parts of `T*F % 16 == 0`: what is left and right of the sign."""
    dividend, _, divisor = left.rpartition("%")
    if sign != "==" or right.strip() != "0":
        raise ValueError(f"not a relation of dims: {text.strip()} ({_EXAMPLES})")
    return relate(parse_expr(dividend), Comparison.MULTIPLE_OF, parse_expr(divisor))
