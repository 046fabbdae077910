"""Sizes at which a condition is checked by running the chain: on both sides of each end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from composecli.compose.conditions import Condition
from composecli.core.dims import (
    Free,
    admits,
    example_size,
    intersect,
    largest_size,
    sizes_between,
    sizes_outside,
)
from composecli.core.size_expr import symbols

# Sizes that are looked through for one that fails.
MAX_SMALL_SIZE = 4096

Sizes = Mapping[str, int]
Ranges = Mapping[str, Free]


def fitting_points(conditions: Sequence[Condition], ranges: Ranges, sizes: Sizes) -> list[Sizes]:
    """Return sizes at which the conditions are met: the smallest, the largest, and others.

    Their sizes differ, because equal ones may hide a condition.
    """
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
    points.append(largest)
    return [point for point in _distinct(points, sizes) if meets(conditions, point)]


def failing_points(conditions: Sequence[Condition], ranges: Ranges, sizes: Sizes) -> list[Sizes]:
    """Return sizes just outside of each condition, beside those of the example."""
    points = list[Sizes]()
    for condition in conditions:
        dim = condition.dim
        if dim is None:
            continue
        outside = list(sizes_outside(dim))
        if dim.step > 1:
            outside.append(sizes[dim.name] + 1)
        own = ranges[dim.name]
        points += [{**sizes, dim.name: size} for size in outside if admits(own, size)]
    return [point for point in _distinct(points, sizes) if not meets(conditions, point)]


def smallest_failing(
    conditions: Sequence[Condition], ranges: Ranges, sizes: Sizes
) -> Iterator[Sizes]:
    """Yield sizes that do not meet the conditions, the smallest ones of each symbol first."""
    for condition in conditions:
        for name in sorted(_names(condition) & sizes.keys()):
            own = ranges[name]
            for size in sizes_between(own, own.low, own.high or MAX_SMALL_SIZE):
                point = {**sizes, name: size}
                if not meets(conditions, point):
                    yield point
    lowest = {name: example_size(ranges[name], 1) for name in sizes}
    if not meets(conditions, lowest):
        yield lowest


def _names(condition: Condition) -> frozenset[str]:
    """Return the symbols that a condition is about."""
    if condition.dim is not None:
        return frozenset((condition.dim.name,))
    return symbols(condition.expr)


def meets(conditions: Sequence[Condition], sizes: Sizes) -> bool:
    """Return whether all conditions are met at these sizes."""
    return all(condition.fits(sizes) for condition in conditions)


def _fitting_dims(conditions: Sequence[Condition], ranges: Ranges, sizes: Sizes) -> dict[str, Free]:
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
