"""Sizes at which a condition is checked by running the chain: on both sides of each end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from composecli.compose.conditions import MAX_TRIED_SIZE, Condition
from composecli.core.dims import (
    Free,
    admits,
    example_size,
    intersect,
    largest_size,
    sizes_outside,
    sizes_to_try,
)
from composecli.core.relations import Where, all_hold, other_sizes_meeting
from composecli.core.size_expr import symbols

Sizes = Mapping[str, int]
Ranges = Mapping[str, Free]
Conditions = Sequence[Condition]


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the input of a chain admits: the range of each dim, and relations between them."""

    ranges: Ranges
    where: Where = ()

    def others(self, sizes: Sizes) -> list[Sizes]:
        """Return other sizes of the dims that are related, which only change together."""
        return list(other_sizes_meeting(self.where, self.ranges, sizes))

    def allows(self, sizes: Sizes) -> bool:
        """Return whether the relations hold at these sizes."""
        return all_hold(self.where, sizes)


def fitting_points(conditions: Conditions, admitted: Admitted, sizes: Sizes) -> list[Sizes]:
    """Return sizes at which the conditions are met: the smallest, the largest, and others.

    Their sizes differ, because equal ones may hide a condition.
    """
    ranges = admitted.ranges
    dims = _fitting_dims(conditions, ranges, sizes)
    smallest = {name: example_size(dim, dim.low) for name, dim in dims.items()}
    others = dict[str, int]()
    for number, (name, dim) in enumerate(dims.items(), 1):
        others[name] = example_size(dim, sizes[name] + number)
    points: list[Sizes] = [smallest, others]
    largest = dict(sizes)
    for condition in conditions:
        if condition.dim is None:
            continue
        name = condition.dim.name
        largest[name] = largest_size(dims[name]) or sizes[name]
    points += [largest, *admitted.others(sizes)]
    allowed = filter(admitted.allows, _distinct(points, sizes))
    return [point for point in allowed if meets(conditions, point)]


def failing_points(conditions: Conditions, admitted: Admitted, sizes: Sizes) -> list[Sizes]:
    """Return sizes just outside of each condition, beside those of the example."""
    points = admitted.others(sizes)
    for condition in conditions:
        dim = condition.dim
        if dim is None:
            continue
        outside = list(sizes_outside(dim))
        if dim.step > 1:
            outside.append(sizes[dim.name] + 1)
        own = admitted.ranges[dim.name]
        points += [{**sizes, dim.name: size} for size in outside if admits(own, size)]
    allowed = filter(admitted.allows, _distinct(points, sizes))
    return [point for point in allowed if not meets(conditions, point)]


def smallest_failing(conditions: Conditions, admitted: Admitted, sizes: Sizes) -> Iterator[Sizes]:
    """Yield sizes that do not meet the conditions, the smallest ones of each symbol first."""
    for point in _small_points(conditions, admitted, sizes):
        if admitted.allows(point) and not meets(conditions, point):
            yield point


def _small_points(conditions: Conditions, admitted: Admitted, sizes: Sizes) -> Iterator[Sizes]:
    """Yield each size of each symbol of the conditions, then the smallest sizes together."""
    ranges = admitted.ranges
    for condition in conditions:
        for name in sorted(_names(condition) & sizes.keys()):
            own = ranges[name]
            for size in sizes_to_try(own, MAX_TRIED_SIZE):
                yield {**sizes, name: size}
    yield {name: example_size(ranges[name], 1) for name in sizes}
    yield from admitted.others(sizes)


def _names(condition: Condition) -> frozenset[str]:
    """Return the symbols that a condition is about."""
    if condition.dim is not None:
        return frozenset((condition.dim.name,))
    return symbols(condition.expr)


def meets(conditions: Conditions, sizes: Sizes) -> bool:
    """Return whether all conditions are met at these sizes."""
    return all(condition.fits(sizes) for condition in conditions)


def _fitting_dims(conditions: Conditions, ranges: Ranges, sizes: Sizes) -> dict[str, Free]:
    """Return the sizes of each symbol that meet the conditions on it."""
    dims = {name: ranges[name] for name in sizes}
    for condition in conditions:
        if condition.dim is None:
            continue
        name = condition.dim.name
        dims[name] = intersect(dims[name], condition.dim) or dims[name]
    return dims


def _distinct(points: Sequence[Sizes], sizes: Sizes) -> list[Sizes]:
    """Return each of the points once, without the example."""
    distinct = list[Sizes]()
    for point in points:
        if point != sizes and point not in distinct:
            distinct.append(point)
    return distinct
