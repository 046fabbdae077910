"""Confirm a relation of axes by sizes that meet it and sizes that break it, and find its limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise

from composecli.core.dims import as_free, example_size
from composecli.core.relations import Comparison, Relation, holds
from composecli.core.size_expr import Const, Expr, Product, evaluate, substitute, symbols
from composecli.inference.divisors import prime_divisors
from composecli.inference.related_axes import (
    ODD_PAIRS,
    RelatedAxes,
    Sizes,
    Trials,
    by_symbol,
    large_sizes,
    symbol_of,
)

# How many sizes of an axis are tried.
MAX_SIZE = 8192
# How far above the smallest possible size an axis may start: behind a large kernel.
MAX_START = 16
MAX_SHARED = 4


def confirmed(trials: Trials, related: RelatedAxes) -> RelatedAxes | None:
    """Return the relation with the limits of its axes; None if a run contradicts it."""
    names = {number: symbol_of(number).name for number in related.numbers}
    relation = related.relation(names)
    solver = _Solver(trials, related, relation)
    for number in related.numbers:
        low = solver.low(number)
        if low is None:
            return None
        solver.lows[number] = low
    for number in related.numbers:
        if not solver.find_end(number):
            return None
    if not all(trials.at(sizes) for sizes in islice(solver.meeting(), MAX_SHARED)):
        return None
    if not all(trials.at(sizes) is False for sizes in solver.breaking()):
        return None
    elsewhere = solver.elsewhere()
    if elsewhere is not None and not trials.at(elsewhere):
        return None
    return replace(related, lows=solver.lows, highs=solver.highs)


@dataclass(slots=True)
class _Solver:
    """Finds sizes of the axes of a relation that meet it, or break it."""

    trials: Trials
    related: RelatedAxes
    relation: Relation
    lows: dict[int, int]
    highs: dict[int, int]

    def __init__(self, trials: Trials, related: RelatedAxes, relation: Relation) -> None:
        self.trials, self.related, self.relation = trials, related, relation
        self.lows = {number: self._first(number) for number in related.numbers}
        self.highs = {}

    def low(self, number: int) -> int | None:
        """Return the smallest size of an axis that the model accepts; None if none is found."""
        first = low = self._start(number)
        for size in range(first, first + MAX_START):
            sizes = self._near_example(number, size)
            if sizes is None:
                continue
            if self.trials.at(sizes):
                return low
            low = size + 1
        return None

    def _start(self, number: int) -> int:
        """Return the size to start from: the known limit, unless a smaller size is accepted."""
        first, free = self.lows[number], as_free(self.trials.dims[number])
        if free is None or free.step > 1 or free.low <= first:
            return first
        for size in range(free.low - 1, first - 1, -1):
            sizes = self._near_example(number, size)
            if sizes is not None:
                if self.trials.at(sizes) is False:
                    return free.low
                break
        return first

    def find_end(self, number: int) -> bool:
        """Find the largest size of an axis if it has one; return whether it is known."""
        smallest = self.smallest_solved_for(number)
        if smallest is None:
            return True
        tried = [smallest]
        if self.related.comparison is Comparison.MULTIPLE_OF:
            tried += islice(self._large(number), 1)
        for sizes in tried:
            if not self.trials.at(sizes) and not self._ends_below(number, sizes[number]):
                return False
        return True

    def meeting(self) -> Iterator[dict[int, int]]:
        """Yield sizes that meet the relation, with several axes above their smallest sizes."""
        tripled = self._tripled()
        if tripled is not None:
            yield tripled
        for one, other in pairwise(self.related.numbers):
            for size in (self.lows[one] + 1, self.trials.size(one)):
                found = self._solve({**self.lows, one: size}, other)
                if found is not None:
                    yield found

    def breaking(self) -> Iterator[dict[int, int]]:
        """Yield sizes that break the relation: near those that meet it, and with divisors of it."""
        found = list[dict[int, int]]()
        for number in self.related.numbers:
            met = self.smallest_solved_for(number)
            if met is not None:
                found.append({**met, number: met[number] + 1})
        last = self.related.numbers[-1]
        found += self._with_divisors(last)
        if len(self.related.numbers) > 1:
            one = self.related.numbers[0]
            for odd in ODD_PAIRS:
                more = {one: self.lows[one] + odd[0], last: self.lows[last] + odd[1]}
                found.append({**self.lows, **more})
        for sizes in found:
            if not self._holds(sizes) and self._size(sizes) > 1:
                yield sizes

    def elsewhere(self) -> dict[int, int] | None:
        """Return sizes that meet the relation, beside others of the axes that are not related."""
        sizes = self.smallest_solved_for(self.related.numbers[-1])
        if sizes is None:
            return None
        for number, dim in enumerate(self.trials.dims):
            free = as_free(dim)
            if free is not None and number not in sizes:
                sizes[number] = example_size(free, self.trials.size(number) + 1)
        return sizes

    def smallest_solved_for(self, number: int) -> dict[int, int] | None:
        """Return the smallest sizes that meet the relation, all other axes as small as they are."""
        return self._solve(self.lows, number)

    def _first(self, number: int) -> int:
        """Return the smallest size of an axis at which each factor of its own is a size."""
        name = symbol_of(number).name
        own = [factor for factor in _factors(self.related.size) if symbols(factor) == {name}]
        for size in range(1, MAX_SIZE):
            if all(evaluate(factor, {name: size}) > 0 for factor in own):
                return size
        return MAX_SIZE

    def _near_example(self, number: int, size: int) -> dict[int, int] | None:
        """Return sizes that meet the relation, one of them this one, and few others changed."""
        example = {other: self.trials.size(other) for other in self.related.numbers}
        others = [other for other in reversed(self.related.numbers) if other != number]
        if not others:
            return self._solve({}, number, size)
        for start in (example, self.lows):
            sizes = {**start, number: size}
            if self._holds(sizes):
                return sizes
            for other in others:
                found = self._solve(sizes, other)
                if found is not None:
                    return found
        return None

    def _solve(
        self, sizes: Sizes, number: int, first: int = 0, relation: Relation | None = None
    ) -> dict[int, int] | None:
        """Return the sizes with the smallest one of an axis that meets the relation."""
        aim = relation or self.relation
        name = symbol_of(number).name
        others: dict[str, Expr] = {
            symbol_of(other).name: Const(size) for other, size in sizes.items() if other != number
        }
        alone = replace(aim, left=substitute(aim.left, others))
        start = max(first, self.lows[number])
        for size in range(start, start + MAX_SIZE):
            if evaluate(alone.left, {name: size}) > 0 and holds(alone, {name: size}):
                return {**sizes, number: size}
        return None

    def _large(self, number: int) -> Iterator[dict[int, int]]:
        """Yield sizes that meet the relation, one of them as large as is affordable."""
        for size in large_sizes(self.trials):
            found = self._solve(self.lows, number, size)
            if found is not None and self.trials.is_affordable(found):
                yield found

    def _ends_below(self, number: int, refused: int) -> bool:
        """Return whether an axis ends at a limit of the model, below a size that is refused."""
        for limit in sorted(self.trials.limits, reverse=True):
            above = self._solve(self.lows, number, limit + 1)
            if limit >= refused or above is None:
                continue
            below = self._last(number, limit)
            if below is not None and self.trials.at(below):
                self.highs[number] = limit
                return self.trials.at(above) is False
        return False

    def _last(self, number: int, most: int) -> dict[int, int] | None:
        """Return the sizes with the largest one of an axis up to this one that meets it."""
        for size in range(most, self.lows[number] - 1, -1):
            sizes = {**self.lows, number: size}
            if self._holds(sizes):
                return sizes
        return None

    def _tripled(self) -> dict[int, int] | None:
        """Return sizes of three rows of the number, so that one row is no constant."""
        if self.related.comparison is Comparison.EQUALS or self.relation.number is None:
            return None
        relation = Relation(self.relation.left, Comparison.EQUALS, Const(3 * self.relation.number))
        for number in self.related.numbers:
            found = self._solve(self.lows, number, relation=relation)
            if found is not None:
                return found
        return None

    def _with_divisors(self, number: int) -> Iterator[dict[int, int]]:
        """Yield sizes that meet the relation with a divisor of its number instead."""
        whole = self.relation.number or 1
        for prime in prime_divisors(whole):
            relation = replace(self.relation, right=Const(whole // prime))
            found = self._solve(self.lows, number, relation=relation)
            if found is not None:
                yield found

    def _holds(self, sizes: Sizes) -> bool:
        """Return whether sizes meet the relation."""
        return self._size(sizes) > 0 and holds(self.relation, by_symbol(sizes))

    def _size(self, sizes: Sizes) -> int:
        """Return the size that follows from these."""
        return evaluate(self.related.size, by_symbol(sizes))


def _factors(size: Expr) -> tuple[Expr, ...]:
    """Return the factors of an expression."""
    match size:
        case Product(factors):
            return factors
    return (size,)
