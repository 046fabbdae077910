"""Relations of a consumer's dims, in the symbols of its producers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from composecli.compose.conditions import Condition, for_each_side, solve_relation
from composecli.core.dims import Dim, Free, Shape, as_expr, as_free
from composecli.core.relations import (
    Comparison,
    Relation,
    Where,
    holds,
    substitute_relation,
)
from composecli.core.size_expr import Const, Expr, evaluate, format_expr


@dataclass(slots=True)
class Given:
    """What the symbols of a consumer are given: sizes in the example, and expressions.

    A symbol without an expression is given an unknown dim. `known` are the relations that the
    producers keep anyway.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    exprs: dict[str, Expr] = field(default_factory=dict)
    known: Where = ()

    def add(self, given: Shape, taken: Shape, sizes: tuple[int, ...]) -> None:
        """Add the axes of one port. A symbol keeps the first of its axes."""
        for dim, consumer_dim, size in zip(given, taken, sizes, strict=True):
            free = as_free(consumer_dim)
            if free is None or free.name in self.sizes:
                continue
            self.sizes[free.name] = size
            self._add_expr(free.name, dim)

    def _add_expr(self, name: str, dim: Dim) -> None:
        """Add the expression that a symbol is given, if it is known."""
        expr = as_expr(dim)
        if expr is not None:
            self.exprs[name] = expr

    def restated(self, where: Where) -> Iterator[Relation]:
        """Yield the relations in the symbols of the producers, where those are known."""
        for relation in where:
            if not relation.symbols <= self.exprs.keys():
                continue
            restated = substitute_relation(relation, self.exprs)
            if restated not in self.known:
                yield restated

    def undecided(self, where: Where) -> Iterator[str]:
        """Yield each relation that cannot be restated, with the reason."""
        for relation in where:
            if not relation.symbols <= self.exprs.keys():
                yield f"{relation}: one of the sizes is unknown"


def broken_relations(where: Where, given: Given) -> Iterator[str]:
    """Yield what is wrong with the sizes of the example: `C*H*W is 4096, not 1024`."""
    for relation in where:
        if relation.symbols <= given.sizes.keys() and not holds(relation, given.sizes):
            yield _wrong(relation, given.sizes)


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


def is_never_met(where: Where, given: Given) -> bool:
    """Return whether a relation fails at every size: `C*H*W` is 16*2*2 for `C*H*W == 100`."""
    for relation in given.restated(where):
        if not relation.symbols and not holds(relation, {}):
            return True
    return False


def relation_conditions(
    where: Where, given: Given, ranges: Mapping[str, Free], sizes: Mapping[str, int]
) -> list[Condition]:
    """Return the conditions under which the relations hold, of those that can be decided.

    `16*ceil(H/4)*ceil(W/4)` for `C*H*W == 1024` is the condition `ceil(H/4)*ceil(W/4) == 64`, and
    `16*L` for `C*L == 1024` is `L==64`. `ranges` are the free dims of the producer's own input, and
    `sizes` those of the example, next to which a relation of the sides of an image is stated.
    """
    conditions = list[Condition]()
    for relation in given.restated(where):
        condition = solve_relation(relation, ranges)
        if condition is not None:
            conditions += for_each_side(condition, ranges, sizes)
    return conditions
