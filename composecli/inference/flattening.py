"""Recognize models of any rank, to which only the product of the axes matters.

A flatten, a view or a reshape before the first layer takes `float32[2, 1024]` as it does
`float32[2, 16, 8, 8]`: `float32[N, *] where prod(*) == 1024`. That is claimed only if it holds at
each rank that is tried.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from composecli.core.contract import Contract, Port, Signature
from composecli.core.dims import (
    Dim,
    Free,
    Shape,
    admits_every_size,
    as_free,
    fixed_size,
    free_dims,
    unknown_reason,
)
from composecli.core.observations import Accepted, Observation, Rejected, Untried
from composecli.core.pytree import Call, call_leaves, leaves, replace_call_leaf
from composecli.core.relations import Comparison, Relation, relate
from composecli.core.size_expr import (
    PRODUCT_OF_REST,
    Const,
    Expr,
    Product,
    Symbol,
    multiply,
    symbols,
)
from composecli.inference.axis_groups import Leaves
from composecli.inference.divisors import prime_factors
from composecli.inference.prober import Prober
from composecli.inference.relate import fitting_outputs

Sizes = tuple[int, ...]
Factors = tuple[Expr, ...]

# How many axes `*` is tried to stand for: few, and more than a model is likely to count.
_COUNTS: Sizes = (2, 1, 3, 4, 6)
# The batch and the rows of each trial, in turn.
_BATCHES = (3, 1, 2)
_ROWS = (3, 1)

_REST = Symbol(PRODUCT_OF_REST)


@dataclass(frozen=True, slots=True)
class _Flattened:
    """A factor of axes that equals the number, or is a multiple of it, however many they are.

    `before` are the names of the axes in front of those that `*` stands for. The factor is
    `prod(*)`, or `N*prod(*)` if the batch is multiplied with them.
    """

    before: tuple[str, ...]
    factor: Expr
    comparison: Comparison
    number: int

    @property
    def relation(self) -> Relation:
        """The relation at any rank: `prod(*) == 1024`."""
        return relate(self.factor, self.comparison, Const(self.number))

    @property
    def shares_batch(self) -> bool:
        """Whether the axes in front are multiplied, too."""
        return not symbols(self.factor).isdisjoint(self.before)

    def by_name(self, sizes: Sizes) -> dict[str, int]:
        """Return the size of each axis in front, and the product of the other axes."""
        count = len(self.before)
        in_front = dict(zip(self.before, sizes, strict=False))
        return {**in_front, PRODUCT_OF_REST: math.prod(sizes[count:])}

    def sizes(self, count: int, total: int, near: int) -> Sizes:
        """Return sizes with this total of the product, where `*` is `count` axes."""
        if self.shares_batch:
            return _spread(total, len(self.before) + count)
        in_front = (near + place for place, _ in enumerate(self.before))
        return (*in_front, *_spread(total, count))

    def fitting(self) -> Iterator[Sizes]:
        """Yield sizes that meet the relation, at several ranks."""
        counts = _COUNTS
        if self.shares_batch:
            counts = (*_COUNTS, 0)
        for place, count in enumerate(counts):
            total = self.number
            if self.comparison is Comparison.MULTIPLE_OF:
                total *= _ROWS[place % len(_ROWS)]
            yield self.sizes(count, total, _BATCHES[place % len(_BATCHES)])

    def breaking(self) -> Iterator[Sizes]:
        """Yield sizes that break the relation, at several ranks."""
        yield self.sizes(2, self.number + 1, 1)
        yield self.sizes(3, 2 * self.number + 1, 2)
        if self.comparison is Comparison.EQUALS:
            yield self.sizes(2, 2 * self.number, 1)
        if self.before and not self.shares_batch:
            # The product of no axes is 1.
            yield (*self.sizes(0, 1, 2)[1:], self.number)


def _spread(total: int, count: int) -> Sizes:
    """Return as many sizes with this product: the largest prime first, the others in turn."""
    if count < 2:
        return (total,) * count
    first, *others = reversed(list(prime_factors(total)))
    sizes = [first, *[1] * (count - 1)]
    for number, prime in enumerate(others):
        sizes[1 + number % (count - 1)] *= prime
    return tuple(sizes)


@dataclass(slots=True)
class _Ranks:
    """Forwards at other ranks than that of the example, and what happened."""

    call: Call
    prober: Prober
    accepted: dict[Sizes, Leaves] = field(default_factory=dict)
    refused: list[Sizes] = field(default_factory=list)

    def accepts(self, sizes: Sizes) -> bool:
        """Run the model at these sizes, and return whether it accepts them."""
        observation = self._observe(sizes)
        if isinstance(observation, Accepted):
            self.accepted[sizes] = tuple(leaves(observation.result))
            return True
        return False

    def refuses(self, sizes: Sizes) -> bool:
        """Run the model at these sizes, and return whether it refuses them."""
        match self._observe(sizes):
            case Rejected(out_of_memory=False):
                self.refused.append(sizes)
                return True
        return False

    def _observe(self, sizes: Sizes) -> Observation | Untried:
        """Run the model at these sizes of its only input."""
        ((path, spec),) = call_leaves(self.call)
        tensor = replace(spec, sizes=sizes, sample=None)
        return self.prober.outcome(replace_call_leaf(self.call, {path: tensor}))

    @property
    def note(self) -> str:
        """The sizes that were tried, as evidence."""
        taken = ", ".join(map(_text, self.accepted))
        refused = ", ".join(map(_text, self.refused))
        return f"other ranks took {taken}; refused {refused}"


def _text(sizes: Sizes) -> str:
    """Return sizes as they are shown: `(2, 16, 64)`."""
    listed = ", ".join(map(str, sizes))
    return f"({listed})"


def with_any_rank(contract: Contract, prober: Prober) -> Contract:
    """Return the contract with the ports for any rank, if the model takes any.

    At each rank that is tried, it has to take sizes whose product fits, return the sizes that its
    outputs declare, and refuse sizes whose product does not fit.
    """
    flattened = _flattened(contract)
    if flattened is None:
        return contract
    ranks = _Ranks(contract.example, prober)
    (port,) = contract.inputs
    rank = len(port.dims or ())
    others = (sizes for sizes in flattened.fitting() if len(sizes) != rank)
    if not all(map(ranks.accepts, others)):
        return contract
    if not all(map(ranks.refuses, flattened.breaking())):
        return contract
    outputs = _outputs(contract, flattened, ranks)
    if outputs is None:
        return contract
    of_any_rank = _with_rest(port, len(flattened.before))
    signature = Signature((of_any_rank,), outputs, (flattened.relation,))
    *stated, probed = contract.evidence
    noted = replace(probed, detail=f"{probed.detail}; {ranks.note}")
    return replace(contract, evidence=(*stated, noted), any_rank=signature)


def _with_rest(port: Port, place: int) -> Port:
    """Return the port with any number of axes from this place on."""
    if not place:
        return replace(port, dims=None)
    return replace(port, dims=(port.dims or ())[:place], rest=place)


def _outputs(contract: Contract, flattened: _Flattened, ranks: _Ranks) -> tuple[Port, ...] | None:
    """Return the outputs with dims that hold at each rank; None if one of them is not known."""
    ((_, spec),) = call_leaves(contract.example)
    found = (*ranks.accepted.items(), (spec.sizes, tuple(leaves(contract.result))))
    points = [(flattened.by_name(sizes), result) for sizes, result in found]
    outputs = tuple(fitting_outputs(contract.outputs, points, (flattened.factor,)))
    for port in outputs:
        if any(unknown_reason(dim) is not None for dim in port.dims or ()):
            return None
    return outputs


def _flattened(contract: Contract) -> _Flattened | None:
    """Return the product of axes that the only input has to meet; None if it has another form.

    Ids are sequences by convention, whatever the model does with their axes.
    """
    specs = [spec for _, spec in call_leaves(contract.example)]
    if len(contract.inputs) != 1 or contract.unknown_dims or not contract.outputs:
        return None
    if any(spec.may_hold_ids for spec in specs):
        return None
    dims = contract.inputs[0].dims or ()
    match contract.where:
        case ():
            return _of_last_axes(dims)
        case (Relation(Product(factors), comparison, Const()) as relation,):
            if comparison is Comparison.AT_MOST or not _takes_every_size(dims):
                return None
            return _of_factors(dims, relation, factors)
    return None


def _takes_every_size(dims: Sequence[Dim]) -> bool:
    """Return whether each axis may have any size from 1, whatever the others have."""
    return all(map(admits_every_size, dims)) and len(set(_names(dims))) == len(dims)


def _names(dims: Iterable[Dim]) -> tuple[str, ...]:
    """Return the name of each free dim."""
    return tuple(free.name for free in free_dims(dims))


def _of_factors(dims: Shape, relation: Relation, factors: Factors) -> _Flattened | None:
    """Return the product if its factors are all axes, or all behind some of them."""
    names = _names(dims)
    place = len(names) - len(factors)
    if Counter(factors) != Counter(map(Symbol, names[place:])):
        return None
    number = relation.number or 0
    if place or relation.comparison is Comparison.EQUALS:
        return _Flattened(names[:place], _REST, relation.comparison, number)
    # The output has an axis that follows the batch.
    factor = multiply(Symbol(names[0]), _REST)
    return _Flattened(names[:1], factor, relation.comparison, number)


def _of_last_axes(dims: Shape) -> _Flattened | None:
    """Return the product that the sizes of the last axes may be: fixed ones, or a multiple.

    `float32[N, 7, 1, 1]` may be any input of 7 elements.
    """
    before = tuple(takewhile(admits_every_size, dims))
    last = dims[len(before) :]
    names = _names(before)
    if not last or not before or len(set(names)) < len(names):
        return None
    sizes = [size for size in map(fixed_size, last) if size is not None]
    if len(sizes) == len(last) and math.prod(sizes) > 1:
        return _Flattened(names, _REST, Comparison.EQUALS, math.prod(sizes))
    multiple = as_free(last[0])
    if multiple is not None and len(last) == 1 and _is_any_multiple(multiple):
        return _Flattened(names, _REST, Comparison.MULTIPLE_OF, multiple.step)
    return None


def _is_any_multiple(dim: Free) -> bool:
    """Return whether the axis takes each multiple of a number, and nothing else."""
    multiples = Free(dim.name, dim.low, step=dim.step)
    return dim == multiples and dim.low <= dim.step and dim.step > 1
