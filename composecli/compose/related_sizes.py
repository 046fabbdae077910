"""Relations of a consumer's dims, in the symbols of its producers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from composecli.compose.conditions import MAX_TRIED_SIZE, Condition, describe_sizes
from composecli.core.dims import Dim, Free, Shape, as_expr, as_free, sizes_between
from composecli.core.relations import (
    Comparison,
    Relation,
    Where,
    holds,
    substitute_relation,
)
from composecli.core.size_expr import Const, Expr, evaluate, format_expr, split_factor

# Sizes of each symbol that are tried for the smallest ones that break a relation.
MAX_SMALL_SIZE = 8


@dataclass(slots=True)
class Given:
    """What the symbols of a consumer are given: sizes in the example, and expressions.

    A symbol without an expression is given an unknown dim.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    exprs: dict[str, Expr] = field(default_factory=dict)

    def add(self, given: Shape, taken: Shape, sizes: tuple[int, ...]) -> None:
        """Add the axes of one port. A symbol keeps the first of its axes."""
        for dim, consumer_dim, size in zip(given, taken, sizes, strict=True):
            free = as_free(consumer_dim)
            if free is None or free.name in self.sizes:
                continue
            self.sizes[free.name] = size
            self._add_expr(free.name, dim)

    def _add_expr(self, name: str, dim: Dim) -> None:
        """Add what a symbol is given, if it is known."""
        expr = as_expr(dim)
        if expr is not None:
            self.exprs[name] = expr


def broken_relations(where: Where, given: Given) -> Iterator[str]:
    """Yield what is wrong with the sizes of the example: `C*H*W is 4096, not 1024`."""
    for relation in where:
        if relation.symbols <= given.sizes.keys() and not holds(relation, given.sizes):
            text = _wrong(relation, given.sizes)
            reason = impossible(relation, given.exprs)
            if reason:
                text += f": {reason}"
            yield text


def _wrong(relation: Relation, sizes: Mapping[str, int]) -> str:
    """Return how the sizes break a relation."""
    left, right = format_expr(relation.left), format_expr(relation.right)
    is_left, is_right = evaluate(relation.left, sizes), evaluate(relation.right, sizes)
    number = f"{right}, which is {is_right}"
    if isinstance(relation.right, Const):
        number = right
    match relation.comparison:
        case Comparison.EQUALS:
            return f"{left} is {is_left}, not {number}"
        case Comparison.AT_MOST:
            return f"{left} is {is_left}, more than {number}"
        case Comparison.MULTIPLE_OF:
            return f"{left} is {is_left}, which is no multiple of {number}"


def impossible(relation: Relation, exprs: Mapping[str, Expr]) -> str:
    """Return why a product never has the size that it should have; empty if it may have."""
    if relation.comparison is not Comparison.EQUALS or not relation.symbols <= exprs.keys():
        return ""
    relation = substitute_relation(relation, exprs)
    if not isinstance(relation.right, Const):
        return ""
    scale, _ = split_factor(relation.left)
    if scale == 0 or relation.right.value % scale == 0:
        return ""
    return f"{format_expr(relation.left)} is never {relation.right.value}"


def relation_conditions(
    where: Where, given: Given, ranges: Mapping[str, Free], known: Where
) -> tuple[list[Condition], list[str]]:
    """Return the conditions under which the relations hold, and those that cannot be decided.

    `16*ceil(H/4)*ceil(W/4)` for `C*H*W == 1024` is the condition `ceil(H/4)*ceil(W/4) == 64`, and
    `16*L` for `C*L == 1024` is `L == 64`. `ranges` are the free dims of the producer's own input,
    and `known` the relations that they meet anyway.
    """
    conditions = list[Condition]()
    undecided = list[str]()
    for relation in where:
        if not relation.symbols <= given.exprs.keys():
            undecided.append(f"{relation}: one of the sizes is unknown")
            continue
        substituted = substitute_relation(relation, given.exprs)
        if substituted in known:
            continue
        condition = _solve(substituted, ranges, known)
        if condition is not None:
            conditions.append(condition)
    return conditions, undecided


def _solve(relation: Relation, ranges: Mapping[str, Free], known: Where) -> Condition | None:
    """Return when a relation holds; None if it always does, as far as sizes are tried."""
    names = sorted(relation.symbols)
    if not names:
        return None
    if len(names) > 1:
        return Condition(str(relation), _smallest_failure(relation, ranges, known))
    (name,) = names
    own = ranges.get(name, Free(name))
    sizes = sizes_between(own, own.low, own.high or MAX_TRIED_SIZE)
    fitting = [size for size in sizes if holds(relation, {name: size})]
    if fitting == sizes:
        return None
    failing = next(size for size in sizes if size not in set(fitting))
    return Condition(describe_sizes(name, fitting, sizes) or str(relation), f"{name} = {failing}")


def _smallest_failure(relation: Relation, ranges: Mapping[str, Free], known: Where) -> str | None:
    """Return the smallest sizes that break a relation, and none of those that are known."""
    names = sorted(relation.symbols)
    small = list[list[int]]()
    for name in names:
        own = ranges.get(name, Free(name))
        small.append(sizes_between(own, own.low, own.low + MAX_SMALL_SIZE * own.step))
    for chosen in sorted(product(*small), key=sum):
        sizes = dict(zip(names, chosen, strict=True))
        others = [other for other in known if other.symbols <= sizes.keys()]
        if not holds(relation, sizes) and all(holds(other, sizes) for other in others):
            return " with ".join(f"{name} = {size}" for name, size in sizes.items())
    return None
