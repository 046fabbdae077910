"""Find axes that are as long as the product of axes of another input.

A mask `(N, H*W)` beside an image `(N, 3, H, W)`: neither H nor W changes alone, nor the mask, but
the mask follows each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

from composecli.core.pytree import Axis, size_of
from composecli.inference.axis_groups import AxisGroup, Example, Tie, make_group, try_size
from composecli.inference.prober import Probe
from composecli.inference.size_rules import SizeRule

# Volumes have three sides.
MAX_FACTORS = 3
MAX_DIVISOR = 64

Axes = tuple[Axis, ...]
Rules = tuple[SizeRule, ...]


def find_products(
    example: Example, stuck: Sequence[Axis], loose: Sequence[Axis], probe: Probe
) -> Iterator[AxisGroup]:
    """Yield a group for each factor, with a tie to each axis that is their product.

    `stuck` are axes that accept no other size alone, and `loose` are those that do: an image that
    is cut into patches may be a little larger than a whole number of them.
    """
    tied = set[Axis]()
    for follower in stuck:
        if follower in tied:
            continue
        groups = _groups_of_product(example, follower, (stuck, loose), probe)
        if tied.isdisjoint(axis for group in groups for axis in group.all_axes):
            for group in groups:
                tied.update(group.all_axes)
            yield from groups


def _groups_of_product(
    example: Example, follower: Axis, axes: tuple[Sequence[Axis], Sequence[Axis]], probe: Probe
) -> list[AxisGroup]:
    """Return the groups of the first factors that the follower is a product of; else none.

    Rules that hold at sizes between the multiples are better than rules that do not.
    """
    stuck, loose = axes
    for factors in _neighbours([*stuck, *loose], follower):
        rules = _possible_rules(example, factors, follower)
        found = list[list[AxisGroup]]()
        for rule_of_each, alike, followers in product(
            rules, _alike(example, factors, stuck), _followers(example, follower, factors, stuck)
        ):
            groups = _groups(example, alike, rule_of_each, followers)
            if all(_follows(example, group, probe) for group in groups):
                found.append(groups)
        if found:
            between = (groups for groups in found if _follows_between(example, groups, probe))
            return next(between, found[0])
    return []


def _neighbours(axes: Sequence[Axis], follower: Axis) -> Iterator[Axes]:
    """Yield three or two neighbouring axes of one other input."""
    known = set(axes)
    for count in range(MAX_FACTORS, 1, -1):
        for path, number in sorted(known, key=str):
            window = tuple((path, number + more) for more in range(count))
            if path != follower[0] and known.issuperset(window):
                yield window


def _possible_rules(example: Example, factors: Axes, follower: Axis) -> list[Rules]:
    """Return rules of the factors with which the follower is their product, or a multiple of it.

    Each is the size itself, or else the size divided by the side of a patch, rounded down or up.
    """
    sizes = [size_of(example.call, axis) for axis in factors]
    size = size_of(example.call, follower)
    if min(sizes) < 2 or size < 2:
        return []
    whole = math.prod(sizes)
    if size % whole == 0:
        return [(SizeRule(1, 0, 1, 0),) * len(factors)]
    divisor = round((whole / size) ** (1 / len(factors)))
    if not 1 < divisor <= MAX_DIVISOR:
        return []
    possible = list[Rules]()
    for shift in (0, divisor - 1):
        rule = SizeRule(1, shift, divisor, 0)
        if math.prod(map(rule.at, sizes)) == size:
            possible.append((rule,) * len(factors))
    return possible


def _alike(example: Example, factors: Axes, stuck: Sequence[Axis]) -> list[tuple[Axes, ...]]:
    """Return the axes of each factor: it alone, or with the stuck axes of its number and size."""
    alone = tuple((axis,) for axis in factors)
    together = list[Axes]()
    for axis in factors:
        size = size_of(example.call, axis)
        others = [other for other in stuck if other[1] == axis[1] and other != axis]
        same = [other for other in others if size_of(example.call, other) == size]
        together.append((axis, *same))
    return list(dict.fromkeys((alone, tuple(together))))


def _followers(
    example: Example, follower: Axis, factors: Axes, stuck: Sequence[Axis]
) -> list[Axes]:
    """Return the axes that may be the product: all stuck ones of the follower's size, or it."""
    size = size_of(example.call, follower)
    others = [axis for axis in stuck if axis[0] != factors[0][0]]
    same = tuple(axis for axis in others if size_of(example.call, axis) == size)
    return list(dict.fromkeys((same, (follower,))))


def _groups(
    example: Example, factors: tuple[Axes, ...], rules: Rules, followers: Axes
) -> list[AxisGroup]:
    """Return a group of the axes of each factor, tied to the followers."""
    groups = list[AxisGroup]()
    for axes, rule in zip(factors, rules, strict=True):
        ties = tuple(Tie(axis, rule, is_factor=True) for axis in followers)
        groups.append(make_group(example, axes, ties=ties))
    return groups


def _follows(example: Example, group: AxisGroup, probe: Probe) -> bool:
    """Return whether the model accepts the group at the next size, or at the next two multiples."""
    divisor = group.ties[0].rule.divisor
    multiple = group.base + divisor
    if not try_size(example.call, group, multiple, probe):
        return False
    return try_size(example.call, group, multiple + divisor, probe)


def _follows_between(example: Example, groups: list[AxisGroup], probe: Probe) -> bool:
    """Return whether the model accepts each group at the next size."""
    return all(try_size(example.call, group, group.base + 1, probe) for group in groups)
