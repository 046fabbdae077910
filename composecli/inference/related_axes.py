"""Find axes of one input that only their product relates: a flatten, or a view.

Behind `Flatten`, `Linear(1024)` accepts `float32[2, 16, 8, 8]`, no other size of C, H or W alone,
but `float32[2, 64, 4, 4]`: the relation is `C*H*W == 1024`. Behind `x.view(-1, 1024)` it accepts
every tensor with `N*C*H*W % 1024 == 0`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from composecli.core.dims import Shape, as_free, example_size, fixed_size, unknown_reason
from composecli.core.observations import Accepted, Observation, Rejected, Untried
from composecli.core.pytree import Axis, Call, KeyPath, call_leaves, leaves, resized, size_of
from composecli.core.relations import Comparison, Relation, relate, substitute_relation
from composecli.core.size_expr import Const, Expr, Product, Symbol, multiply, substitute
from composecli.inference.axis_groups import Leaves
from composecli.inference.divisors import divisors, prime_divisors
from composecli.inference.prober import Probe

# Sizes by the number of the axis.
Sizes = Mapping[int, int]
# Sizes that an axis is tried at: the longest ones that are affordable.
_LARGE_SIZES = (4096, 512, 64)
# Elements of a tensor that is made only to see whether an axis ends.
MAX_ELEMENTS = 4_000_000
# Two sizes whose product few numbers divide.
ODD_PAIRS = ((3, 5), (5, 7), (1, 1))


@dataclass(frozen=True, slots=True)
class RelatedAxes:
    """Axes of one input of which a size follows that has one value, or is a multiple of one.

    It is their product, unless `of` says otherwise: `(H//2)*(W//2)` behind a pooling, with the
    number of an axis as its symbol. `lows` and `highs` are limits of single axes, by number.
    """

    path: KeyPath
    numbers: tuple[int, ...]
    comparison: Comparison
    number: int
    of: Expr | None = None
    lows: Sizes = field(default_factory=dict)
    highs: Sizes = field(default_factory=dict)

    @property
    def size(self) -> Expr:
        """The size that follows from the axes, whose numbers are its symbols."""
        if self.of is not None:
            return self.of
        return multiply(*(symbol_of(number) for number in self.numbers))

    @property
    def is_one_multiple(self) -> bool:
        """Whether it is one axis whose size itself is a multiple: its dim says so by a step."""
        number, *others = self.numbers
        if self.comparison is not Comparison.MULTIPLE_OF:
            return False
        return not others and self.size == symbol_of(number) and not self.highs

    def relation(self, names: Mapping[int, str]) -> Relation:
        """Return the relation of the axes with these names."""
        relation = relate(self.size, self.comparison, Const(self.number))
        return substitute_relation(relation, _symbols(names))

    def factors(self, names: Mapping[int, str]) -> tuple[Expr, ...]:
        """Return the factors of the size, of which sizes of the result may be products."""
        size = substitute(self.size, _symbols(names))
        match size:
            case Product(factors):
                return factors
        return (size,)


def symbol_of(number: int) -> Symbol:
    """Return the symbol for the axis of this number."""
    return Symbol(str(number))


def by_symbol(sizes: Sizes) -> dict[str, int]:
    """Return sizes by the symbols of their axes."""
    return {symbol_of(number).name: size for number, size in sizes.items()}


def _symbols(names: Mapping[int, str]) -> dict[str, Expr]:
    """Return the names of axes by the symbols for their numbers."""
    return {symbol_of(number).name: Symbol(name) for number, name in names.items()}


@dataclass(slots=True)
class Trials:
    """Forwards with several axes of one input resized at once, and what happened.

    `limits` are lengths of tables in the model. `accepted` has the results by call, those of the
    example too.
    """

    call: Call
    path: KeyPath
    dims: Shape
    probe: Probe
    limits: tuple[int, ...] = ()
    accepted: dict[Call, Leaves] = field(default_factory=dict)
    refused: list[Call] = field(default_factory=list)

    def size(self, number: int) -> int:
        """Return the size of an axis in the example."""
        return size_of(self.call, (self.path, number))

    def product(self, numbers: Iterable[int]) -> int:
        """Return the product of these axes in the example."""
        return math.prod(map(self.size, numbers))

    def at(self, sizes: Sizes) -> bool | None:
        """Return whether the model accepts these sizes; None if it could not be tried."""
        return self.run(self.axes(sizes))

    def axes(self, sizes: Sizes) -> dict[Axis, int]:
        """Return the sizes by axis of the call."""
        return {(self.path, number): size for number, size in sizes.items()}

    def is_affordable(self, sizes: Sizes) -> bool:
        """Return whether a tensor of these sizes is small enough to be made."""
        spec = dict(call_leaves(self.call))[self.path]
        changed = [sizes.get(number, size) for number, size in enumerate(spec.sizes)]
        return math.prod(changed) <= MAX_ELEMENTS

    def run(self, sizes: Mapping[Axis, int]) -> bool | None:
        """Return whether the model accepts these sizes of axes of any input."""
        match self.observe(sizes):
            case Accepted():
                return True
            case Rejected(out_of_memory=False):
                return False
        return None

    def observe(self, sizes: Mapping[Axis, int]) -> Observation | Untried:
        """Run the model at these sizes, and keep what happened."""
        call = self.call
        for axis, size in sizes.items():
            call = resized(call, (axis,), size)
        observation = self.probe(call)
        match observation:
            case Accepted(results=results):
                self.accepted[call] = tuple(leaves(results[-1]))
            case Rejected(out_of_memory=False):
                self.refused.append(call)
        return observation


def find_related(trials: Trials) -> RelatedAxes | None:
    """Return axes of one input that are related by their product; None if there are none.

    Only axes that seem to be fixed or to take multiples, or whose dim is unknown, are a reason to
    look. A relation is confirmed by sizes that meet it and sizes that break it.
    """
    stuck = list[int]()
    for number, dim in enumerate(trials.dims):
        if fixed_size(dim) is not None or unknown_reason(dim) is not None:
            stuck.append(number)
    related = _with_fixed_product(trials, stuck) or _with_divisible_product(trials, stuck)
    if related is not None and _is_confirmed(trials, related):
        return related
    return None


def _with_fixed_product(trials: Trials, stuck: Sequence[int]) -> RelatedAxes | None:
    """Return the stuck axes of which one may grow as much as another one shrinks."""
    members = _exchanging(trials, stuck)
    if not members:
        return None
    total = trials.product(members)
    for number in members:
        if not trials.at(_with_total_on(members, number, total)):
            return None
    if trials.at(_with_total_on(members, members[-1], 2 * total)) is not False:
        return None
    return RelatedAxes(trials.path, members, Comparison.EQUALS, total)


def _exchanging(trials: Trials, stuck: Sequence[int]) -> tuple[int, ...]:
    """Return the axes that exchange a factor with each other, the last pair first; none if none."""
    members = list[int]()
    for number in reversed(stuck):
        partners = members[:1] or [other for other in reversed(stuck) if other > number]
        if any(_exchanges(trials, number, partner) for partner in partners):
            members = sorted({number, *partners[:1], *members})
    return tuple(members)


def _exchanges(trials: Trials, one: int, other: int) -> bool:
    """Return whether two axes accept a factor of one at the other."""
    for first, second in ((one, other), (other, one)):
        sizes = trials.size(first), trials.size(second)
        for factor in divisors(sizes[1]):
            exchanged = (sizes[0] * factor, sizes[1] // factor)
            # Sizes that only change places may be the same for another reason.
            if sorted(exchanged) != sorted(sizes):
                return trials.at({first: exchanged[0], second: exchanged[1]}) is True
    return False


def _with_total_on(members: Sequence[int], number: int, total: int) -> dict[int, int]:
    """Return the sizes with this total on one axis, and 1 on the others."""
    return {**dict.fromkeys(members, 1), number: total}


def _with_divisible_product(trials: Trials, stuck: Sequence[int]) -> RelatedAxes | None:
    """Return the axes whose product is a multiple of a number; None if they are not related so."""
    doubled = [number for number in stuck if _accepts_double(trials, number)]
    leaders = doubled or _stepped(trials.dims)
    if not leaders:
        return None
    leader = leaders[-1]
    movable = sorted([*_without_end(trials.dims), *doubled])
    if (
        leader not in movable
        or len(movable) < 2
        or not trials.at(_with_total_on(movable, leader, trials.product(movable)))
    ):
        return None
    divisor = _smallest_divisor(trials, movable, leader)
    if divisor == 1:
        return None
    members = list[int]()
    for number in movable:
        if number == leader or trials.at(_with_total_on(movable, number, divisor)):
            members.append(number)
    if members == [leader] and not doubled:
        return None
    return RelatedAxes(trials.path, tuple(members), Comparison.MULTIPLE_OF, divisor)


def _stepped(dims: Shape) -> list[int]:
    """Return the axes that take multiples of a number."""
    free = ((number, as_free(dim)) for number, dim in enumerate(dims))
    return [number for number, dim in free if dim is not None and dim.step > 1]


def _without_end(dims: Shape) -> list[int]:
    """Return the free axes without an upper limit: a product that is divided has none."""
    free = ((number, as_free(dim)) for number, dim in enumerate(dims))
    return [number for number, dim in free if dim is not None and dim.high is None]


def _accepts_double(trials: Trials, number: int) -> bool:
    """Return whether an axis that accepts few sizes accepts twice its size."""
    if unknown_reason(trials.dims[number]) is not None:
        return True
    return trials.at({number: 2 * trials.size(number)}) is True


def _smallest_divisor(trials: Trials, movable: Sequence[int], leader: int) -> int:
    """Return the smallest divisor of the product of all axes that the leader accepts alone.

    That is its step, unless the sizes of the other axes in the example have factors of it.
    """
    free = as_free(trials.dims[leader])
    if free is not None and trials.at(_with_total_on(movable, leader, free.step)):
        return free.step
    divisor = trials.product(movable)
    for prime in prime_divisors(divisor):
        while divisor % prime == 0:
            if not trials.at(_with_total_on(movable, leader, divisor // prime)):
                break
            divisor //= prime
    return divisor


def _is_confirmed(trials: Trials, related: RelatedAxes) -> bool:
    """Return whether the relation holds at further sizes, and sizes that break it are refused."""
    if not all(trials.at(sizes) is False for sizes in _breaking_sizes(trials, related)):
        return False
    if not all(trials.at(sizes) is True for sizes in _shared_sizes(related)):
        return False
    if _is_limited(trials, related):
        return False
    return trials.run(_sizes_elsewhere(trials, related)) is True


def _is_limited(trials: Trials, related: RelatedAxes) -> bool:
    """Return whether an axis refuses a large multiple, as a table of positions does."""
    if related.comparison is Comparison.EQUALS:
        return False
    for number in related.numbers:
        large = _large_sizes(trials, related, number)
        if large is not None and trials.at(large) is False:
            return True
    return False


def large_sizes(trials: Trials) -> list[int]:
    """Return sizes to try an axis at, the largest first: beyond every table, or else far above."""
    beyond = [limit + 1 for limit in trials.limits]
    return sorted({*beyond, *_LARGE_SIZES}, reverse=True)


def _large_sizes(trials: Trials, related: RelatedAxes, number: int) -> dict[int, int] | None:
    """Return sizes that meet the relation, one axis as large as is tried; None if none is."""
    for size in large_sizes(trials):
        multiple = size + -size % related.number
        sizes = _with_total_on(related.numbers, number, multiple)
        if trials.is_affordable(sizes):
            return sizes
    return None


def _shared_sizes(related: RelatedAxes) -> Iterator[dict[int, int]]:
    """Yield sizes that meet the relation, each of two neighbouring axes with a factor of it."""
    members = related.numbers
    prime = next(iter(prime_divisors(related.number)), 1)
    for one, other in pairwise(members):
        ones = dict.fromkeys(members, 1)
        yield {**ones, one: prime, other: related.number // prime}
        yield {**ones, one: related.number // prime, other: prime}


def _breaking_sizes(trials: Trials, related: RelatedAxes) -> Iterator[dict[int, int]]:
    """Yield sizes of one axis, then of two axes at once, that break the relation.

    A divisor of the number is among them: another axis of the input may have the rest of it.
    """
    members, number = related.numbers, related.number
    yield _with_total_on(members, members[-1], number + 1)
    for prime in prime_divisors(number):
        yield _with_total_on(members, members[-1], number // prime)
    if len(members) == 1:
        yield {members[0]: number + number // 2 + 1}
        return
    one, other = members[0], members[-1]
    if related.comparison is Comparison.EQUALS:
        yield {one: trials.size(one) + 1, other: trials.size(other) + 1}
        return
    ones = dict.fromkeys(members, 1)
    odd = next(pair for pair in ODD_PAIRS if math.prod(pair) % number)
    yield {**ones, one: odd[0], other: odd[1]}


def _sizes_elsewhere(trials: Trials, related: RelatedAxes) -> dict[Axis, int]:
    """Return sizes that meet the relation, with other sizes of the axes that are not related."""
    factors = list(divisors(related.number))
    factor = factors[(len(factors) - 1) // 2]
    members = related.numbers
    sizes = _with_total_on(members, members[0], factor)
    sizes[members[-1]] = related.number // factor
    if len(members) == 1:
        sizes = {members[0]: related.number}
    if related.comparison is Comparison.MULTIPLE_OF:
        sizes[members[-1]] *= 3
    for number, dim in enumerate(trials.dims):
        free = as_free(dim)
        if free is not None and number not in members:
            sizes[number] = example_size(free, trials.size(number) + 1)
    return {(trials.path, number): size for number, size in sizes.items()}
