"""Find how axes are related from the sizes with which an op behind them refuses.

Behind a pooling by 2, `x.view(-1, 2048)` accepts images with `N*(H//2)*(W//2) % 256 == 0`. PyTorch
refuses others with the number of their elements, from which the part of each axis is found:

    shape '[-1, 2048]' is invalid for input of size 16896

If both pooled sides are concatenated before a linear layer of 24 features, that layer refuses with
their sum, and the relation is `H + W == 24`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from composecli.core.dims import Dim, as_free, fixed_size, unknown_reason
from composecli.core.observations import Rejected
from composecli.core.pytree import Axis, call_leaves
from composecli.core.relations import Comparison
from composecli.core.size_expr import Expr, evaluate, symbols
from composecli.inference.confirmed_relation import confirmed
from composecli.inference.multilinear import Levels, interpolate, to_expr
from composecli.inference.refusal_messages import Aim, Refusal, refusals
from composecli.inference.related_axes import RelatedAxes, Sizes, Trials, by_symbol, symbol_of
from composecli.inference.size_rules import SizeRule, candidates, splitting_size

# Sizes from the start at which an op is asked first, and at which rules may be told apart.
_STEPS = range(7)
_REACH = 70
MAX_SPLITS = 8
# So many sizes are needed to tell that the op's size grows evenly, or does not change.
MIN_COUNTS = 3
# How much larger each axis is in the runs that are compared with the size that was found.
_CHECKED_STEPS = ((1, 2), (3, 1), (2, 5))
_LEVEL_STEPS = ((1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 2), (4, 6))


def find_multiples(trials: Trials, *, is_open: bool = False) -> RelatedAxes | None:
    """Return the axes of one input of which a view takes multiples; None if there are none.

    Only axes that take multiples, or whose dim is unknown, are a reason to look, or a result that
    is open: beside sizes with enough factors, each axis may have taken every size.
    """
    if not is_open and not any(map(_takes_some_sizes, trials.dims)):
        return None
    endless = [number for number, dim in enumerate(trials.dims) if _has_no_end(dim)]
    aims = _aims_at(trials, _starts(trials, endless))
    # An axis that takes several sizes alone does not lead to one size.
    multiples = (found for found in aims if found[1].comparison is Comparison.MULTIPLE_OF)
    return _first_related(trials, multiples)


def find_one_size(trials: Trials) -> RelatedAxes | None:
    """Return the axes of one input that lead to one size of an op; None if there are none.

    Each of two or more has one size, as long as the others keep theirs.
    """
    fixed = [number for number, dim in enumerate(trials.dims) if (fixed_size(dim) or 0) > 1]
    if len(fixed) < 2:
        return None
    return _first_related(trials, _shared_aims(trials, fixed[-2:]))


def _first_related(trials: Trials, aims: Iterable[tuple[Sizes, Aim]]) -> RelatedAxes | None:
    """Return the axes that the first of these ops relates.

    They are confirmed at sizes that meet the relation and sizes that break it.
    """
    for start, aim in aims:
        op = _RefusingOp(trials, start, aim)
        size = _size(op)
        if size is None or _depends_on_others(op):
            continue
        related = _related(trials, size, aim)
        if related is not None:
            return related
    return None


def _aims_at(trials: Trials, starts: Iterable[Sizes]) -> Iterator[tuple[Sizes, Aim]]:
    """Yield the aims of the refusals at these sizes.

    Beside few factors of a number, a view refuses other sizes, too, so that elements are counted.
    """
    found = dict[Aim, tuple[int, Sizes]]()
    for start in starts:
        for refusal in _refusals(trials, start):
            shared = math.gcd(refusal.have, refusal.aim.number)
            known = found.get(refusal.aim)
            if known is None or shared < known[0]:
                found[refusal.aim] = shared, start
    in_order = sorted(found.items(), key=lambda item: item[1][0])
    for aim, (_, start) in in_order:
        yield start, aim


def _shared_aims(trials: Trials, fixed: Sequence[int]) -> Iterator[tuple[Sizes, Aim]]:
    """Yield the aims of an op that refuses the next size of either axis."""
    one, other = ({number: trials.size(number) + 1} for number in fixed)
    last = {refusal.aim for refusal in _refusals(trials, other)}
    if last:
        before = {refusal.aim for refusal in _refusals(trials, one)}
        yield from ((other, aim) for aim in last & before)


def _has_no_end(dim: Dim) -> bool:
    """Return whether the axis takes several sizes, and has no known upper limit."""
    free = as_free(dim)
    if free is None:
        return unknown_reason(dim) is not None
    return free.high is None


def _takes_some_sizes(dim: Dim) -> bool:
    """Return whether the axis takes multiples, or sizes that no dim describes."""
    free = as_free(dim)
    if free is None:
        return unknown_reason(dim) is not None
    return free.step > 1


def _starts(trials: Trials, endless: Sequence[int]) -> Iterator[dict[int, int]]:
    """Yield sizes above those of the example: of the last axis, of all, of all but a batch."""
    sizes = {number: trials.size(number) for number in endless}
    if not sizes:
        return
    last = endless[-1]
    yield {**sizes, last: sizes[last] + 2}
    for more in (1, 3, 5):
        yield {number: size + more for number, size in sizes.items()}
        yield {number: size + more + number for number, size in sizes.items()}
    # Beside an even batch, a view may take all of these.
    yield {number: size + min(number, 1) for number, size in sizes.items()}


def _refusals(trials: Trials, sizes: Sizes) -> list[Refusal]:
    """Return the refusals of these sizes of one input; none if the model accepts them."""
    return _refusals_at(trials, trials.axes(sizes))


def _refusals_at(trials: Trials, sizes: Mapping[Axis, int]) -> list[Refusal]:
    """Return the refusals of these sizes of axes of any input."""
    observation = trials.observe(sizes)
    if not isinstance(observation, Rejected):
        return []
    axis = (trials.path, 0)
    return list(refusals(observation.message, sizes.get(axis, trials.size(0))))


@dataclass(slots=True)
class _RefusingOp:
    """An op that refuses, and the size that it is given at sizes of the axes of one input."""

    trials: Trials
    start: Sizes
    aim: Aim

    def at(self, sizes: Sizes) -> int | None:
        """Return the size that the op has at these sizes beside the start; None if unknown."""
        return self.at_axes(self.trials.axes({**self.start, **sizes}))

    def at_axes(self, sizes: Mapping[Axis, int]) -> int | None:
        """Return the size that the op has at these sizes of axes of any input."""
        for refusal in _refusals_at(self.trials, sizes):
            if refusal.aim == self.aim:
                return refusal.have
        return None

    def takes(self, sizes: Sizes) -> bool:
        """Return whether the model accepts these sizes beside the start."""
        return self.trials.at({**self.start, **sizes}) is True

    def is_taken(self, size: int) -> bool:
        """Return whether the op takes this size. One is broadcast."""
        if self.aim.comparison is Comparison.EQUALS:
            return size in (1, self.aim.number)
        return size % self.aim.number == 0

    def size_of(self, number: int) -> int:
        """Return the size of an axis at the start."""
        return self.start.get(number, self.trials.size(number))


def _size(op: _RefusingOp) -> Expr | None:
    """Return the size of the op by the axes, whose numbers are its symbols; None if none is found.

    Every other axis must be known to leave it alone.
    """
    rules = dict[int, SizeRule]()
    for number, dim in enumerate(op.trials.dims):
        following = {number: op.size_of(number) + 1}
        if not _has_no_end(dim) and op.at(following) is None:
            continue
        rule = _rule(op, number)
        if rule is None:
            return None
        if rule.scale:
            rules[number] = rule
    size = _interpolated(op, rules)
    if size is None or not all(_predictions_held(op, size, rules)):
        return None
    return size


def _predictions_held(op: _RefusingOp, size: Expr, rules: Mapping[int, SizeRule]) -> Iterator[bool]:
    """Yield for each trial with other sizes of all axes whether the op has the predicted size."""
    for near, far in _CHECKED_STEPS:
        sizes = dict[int, int]()
        for place, (number, rule) in enumerate(rules.items()):
            more = (near, far)[place % 2] * rule.divisor + place
            sizes[number] = op.size_of(number) + more
        found = op.at(sizes)
        if found is not None:
            predicted = evaluate(size, by_symbol({**op.start, **sizes}))
            yield found == predicted


def _rule(op: _RefusingOp, number: int) -> SizeRule | None:
    """Return the only rule by which the size of the op follows from one axis.

    It is without an integer factor: `H//2` if there are `512*(H//2)` elements.
    """
    first = op.size_of(number)
    counts = _Counts(op, number)
    for step in _STEPS:
        counts.add(first + step)
    tried = {first + step for step in _STEPS}
    untried = sorted({*range(1, first + _REACH)} - tried)
    for _ in range(MAX_SPLITS):
        size = splitting_size(counts.rules(), untried)
        if size is None:
            break
        untried.remove(size)
        counts.add(size)
    rules = counts.rules()
    if len(counts.known) < MIN_COUNTS or splitting_size(rules, untried) is not None:
        return None
    return next(iter(rules), None)


@dataclass(slots=True)
class _Counts:
    """Sizes of the op at the refused sizes of one axis, and the sizes that are accepted."""

    op: _RefusingOp
    number: int
    known: dict[int, int] = field(default_factory=dict)
    taken: list[int] = field(default_factory=list)

    def add(self, size: int) -> None:
        """Run the model at one more size of the axis."""
        sizes = {self.number: size}
        count = self.op.at(sizes)
        if count is not None:
            self.known[size] = count
        elif self.op.takes(sizes):
            self.taken.append(size)

    def rules(self) -> tuple[SizeRule, ...]:
        """Return the rules that fit, for the sizes of the op divided by their common factor."""
        if not self.known:
            return ()
        factor = math.gcd(*self.known.values())
        reduced = {size: count // factor for size, count in self.known.items()}
        fitting = candidates(reduced)
        return tuple(rule for rule in fitting if self._explains(rule, factor))

    def _explains(self, rule: SizeRule, factor: int) -> bool:
        """Return whether the op takes the size of this rule at each accepted size of the axis."""
        return all(self.op.is_taken(factor * rule.at(size)) for size in self.taken)


def _interpolated(op: _RefusingOp, rules: Mapping[int, SizeRule]) -> Expr | None:
    """Return the size of the op through sizes at which each axis counts one more, or as many.

    An axis that the size is a multiple of needs no sizes of its own.
    """
    at_start = op.at({})
    if at_start is None or not rules:
        return None
    parts = {number: rule.ratio for number, rule in rules.items()}
    factors = {number: part for number, part in parts.items() if _is_factor(rules[number])}
    exprs = {number: part.expr(symbol_of(number).name) for number, part in parts.items()}
    product = math.prod(part.at(op.size_of(number)) for number, part in factors.items())
    if not product:
        return None
    others = {number: rule for number, rule in rules.items() if number not in factors}
    for steps in _LEVEL_STEPS:
        polynomial = interpolate(*_levels(op, others, steps, product))
        if polynomial is not None:
            whole = {frozenset({*chosen, *factors}): value for chosen, value in polynomial.items()}
            return to_expr(whole, exprs)
    return None


def _is_factor(rule: SizeRule) -> bool:
    """Return whether a size with this rule is a multiple of the part of the axis."""
    return rule.offset == 0


def _levels(
    op: _RefusingOp, rules: Mapping[int, SizeRule], steps: tuple[int, int], product: int
) -> tuple[Levels, Callable[[Mapping[int, int]], int | None]]:
    """Return two levels of each axis, and the function that gives the size of the op at levels.

    That size is divided by the product. A level is the part of an axis in the size, as `H//2`; the
    second one is so many steps above the first, and the op must refuse it beside the others.
    """
    levels = dict[int, tuple[int, int]]()
    sizes = dict[tuple[int, int], int]()
    for place, (number, rule) in enumerate(rules.items()):
        low = op.size_of(number)
        high = low + steps[place % 2] * rule.divisor
        levels[number] = (rule.ratio.at(low), rule.ratio.at(high))
        for level, size in zip(levels[number], (low, high), strict=True):
            sizes[number, level] = size

    def value_at(point: Mapping[int, int]) -> int | None:
        tried = {number: sizes[number, level] for number, level in point.items()}
        found = op.at(tried)
        if found is None or found % product:
            return None
        return found // product

    return levels, value_at


def _depends_on_others(op: _RefusingOp) -> bool:
    """Return whether sizes of other inputs change that of the op: they may be concatenated."""
    trials = op.trials
    own, at_start = trials.axes(op.start), op.at({})
    for path, spec in call_leaves(trials.call):
        if path == trials.path:
            continue
        for number, size in enumerate(spec.sizes):
            for other in (size + 1, 2 * size):
                changed = op.at_axes({**own, (path, number): other})
                if changed is not None and changed != at_start:
                    return True
    return False


def _related(trials: Trials, size: Expr, aim: Aim) -> RelatedAxes | None:
    """Return the axes with this size; None if every size meets the relation.

    One axis that has one size is fixed, and related to nothing.
    """
    names = {number: symbol_of(number).name for number, _ in enumerate(trials.dims)}
    found = symbols(size)
    numbers = tuple(number for number, name in names.items() if name in found)
    if len(numbers) < 2 and aim.comparison is Comparison.EQUALS:
        return None
    related = RelatedAxes(trials.path, numbers, aim.comparison, aim.number, size)
    number = related.relation(names).number
    if number is None or number == 1:
        return None
    return confirmed(trials, related)
