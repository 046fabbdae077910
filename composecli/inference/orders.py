"""Find sizes of one input that may be up to those of another: `T<=S`.

A model that slices a table of positions by the length of its tokens accepts a table that is longer.
Alone, the tokens end at the length that the table has in the example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from composecli.core.observations import Accepted, Rejected
from composecli.core.relations import Comparison, Relation, relate
from composecli.core.size_expr import Symbol
from composecli.inference.axis_groups import AxisGroup, Example, with_sizes
from composecli.inference.borrowed_limits import Borrowed
from composecli.inference.prober import Probe

# How much larger than in the example both sizes are tried to be.
_STEPS = (3, 7)


class Order(NamedTuple):
    """Two groups of which the first is at most as large as the second."""

    smaller: AxisGroup
    larger: AxisGroup

    @property
    def relation(self) -> Relation:
        """The relation between their names: `T<=S`."""
        return relate(Symbol(self.smaller.name), Comparison.AT_MOST, Symbol(self.larger.name))

    def lift_limits(self) -> None:
        """Take back the limits that the groups have only because of each other's example."""
        self.smaller.lift_end()
        self.larger.lift_start()


def find_orders(borrowed: Sequence[Borrowed], example: Example, probe: Probe) -> list[Order]:
    """Return the groups that are at most as large as another, and take their limits back.

    It is tried at two other sizes of the larger one, each with the same and the next size of the
    smaller one.
    """
    found = dict[str, Order]()
    for order in _possible_orders(borrowed):
        text = str(order.relation)
        if text not in found and _holds(example, order, probe):
            found[text] = order
    for order in found.values():
        order.lift_limits()
    return list(found.values())


def _possible_orders(borrowed: Sequence[Borrowed]) -> Iterator[Order]:
    """Yield the orders that would explain a limit: it is the size of the other in the example."""
    for group, lender in borrowed:
        for order in (Order(group, lender), Order(lender, group)):
            if _explains_all_limits(order):
                yield order


def _explains_all_limits(order: Order) -> bool:
    """Return whether the sizes have the limits that the order gives them, and no others."""
    smaller, larger = order
    dim, other = smaller.free_dim(), larger.free_dim()
    if dim is None or other is None or smaller.ties or larger.ties:
        return False
    if dim.step > 1 or other.step > 1:
        return False
    from_example = (larger.base, smaller.base)
    return dim.low == 1 and other.high is None and (dim.high, other.low) == from_example


def _holds(example: Example, order: Order, probe: Probe) -> bool:
    """Return whether the smaller one is accepted up to the size of the larger one, and no more."""
    for more in _STEPS:
        size = order.larger.base + more
        accepted = _with_both(example, order, (size, size), probe)
        refused = _with_both(example, order, (size + 1, size), probe)
        if not isinstance(accepted, Accepted) or not isinstance(refused, Rejected):
            return False
        if refused.out_of_memory:
            return False
    return True


def _with_both(example: Example, order: Order, sizes: tuple[int, int], probe: Probe) -> object:
    """Return the outcome at these sizes of the smaller and the larger one."""
    pairs = zip(order, sizes, strict=True)
    return probe(with_sizes(example.call, pairs))
