"""Find limits that a size has only because of the example's size of another input.

`Conv1d(4, 8, 4, stride=4)` of `(N, 4, L)` is added to `Conv1d(4, 8, 6, stride=6)` of `(N, 4, L2)`.
If the example has L2 = 64, then only L = 40 to 43 are accepted: those limits are borrowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import NamedTuple

from composecli.core.dims import Free, example_size, largest_size, sizes_outside
from composecli.core.observations import Accepted
from composecli.core.pytree import Call, resized
from composecli.inference.axis_groups import (
    AxisGroup,
    Example,
    Tie,
    make_group,
    try_size,
    with_sizes,
)
from composecli.inference.prober import Probe
from composecli.inference.size_rules import Run, rule_of_runs

# Longer runs are ranges with limits of their own.
MAX_RUN = 64


class Borrowed(NamedTuple):
    """A group that has a limit only because of the size of another one in the example."""

    group: AxisGroup
    lender: AxisGroup


def find_borrowed(groups: Sequence[AxisGroup], example: Example, probe: Probe) -> list[Borrowed]:
    """Return the groups that accept a size beyond their limits if another input changes, too."""
    found = dict[int, Borrowed]()
    for group, lender in permutations(groups, 2):
        number = groups.index(group)
        if number in found or not _are_of_different_inputs(group, lender):
            continue
        if any(isinstance(probe(call), Accepted) for call in _calls(example, group, lender)):
            found[number] = Borrowed(group, lender)
    return list(found.values())


def _are_of_different_inputs(one: AxisGroup, other: AxisGroup) -> bool:
    """Return whether both are explored and have no input in common."""
    if one.stated is not None or other.stated is not None:
        return False
    paths = {path for path, _ in one.all_axes}
    return paths.isdisjoint(path for path, _ in other.all_axes)


def _calls(example: Example, group: AxisGroup, lender: AxisGroup) -> Iterator[Call]:
    """Yield calls with a size that the group refuses, and another size of the lender than before.

    A larger size of one may need a larger size of the other, and a smaller one a smaller one.
    """
    dim, other = group.free_dim(), lender.free_dim()
    if dim is None or other is None:
        return
    largest = largest_size(dim)
    if largest is not None:
        above = sizes_outside(dim)[-1]
        for size in sorted({_larger(lender, other), example_size(other, above)}):
            if size != lender.base:
                yield with_sizes(example.call, [(group, above), (lender, size)])
    below = min(sizes_outside(dim), default=dim.low)
    if not group.is_batch and below < dim.low and other.low < lender.base:
        lowest = example_size(other, other.low)
        yield with_sizes(example.call, [(group, below), (lender, lowest)])


def _larger(group: AxisGroup, dim: Free) -> int:
    """Return a larger size of a group: the first one above its limit, or twice its base."""
    if dim.high is not None:
        return sizes_outside(dim)[-1]
    return example_size(dim, 2 * group.base)


def with_equal_sizes(
    example: Example, borrowed: Sequence[Borrowed], probe: Probe
) -> Example | None:
    """Return the example with one size of two groups that limit each other; None if it is refused.

    One input may have more rows than another one reads: with as many, they are seen to be tied.
    """
    for group, lender in borrowed:
        if group.ties or lender.ties or group.base == lender.base:
            continue
        size = max(group.base, lender.base)
        axes = (*group.axes, *lender.axes)
        call = resized(example.call, axes, size)
        observation = probe(call)
        if isinstance(observation, Accepted):
            return replace(example, call=call, result=observation.result)
    return None


def withdraw(borrowed: Sequence[Borrowed]) -> None:
    """Withdraw the limits of these groups: the size of the lender decides on theirs.

    A batch of 1 is broadcast whatever the other one is, so that size is known to be accepted.
    """
    for group, lender in borrowed:
        if group.base == 1 and group.is_batch:
            group.keep_base()
        else:
            group.mark_unknown(f"its limits follow {lender.name}")


def tie_runs(
    example: Example, groups: Sequence[AxisGroup], probe: Probe
) -> tuple[Example, list[AxisGroup]] | None:
    """Tie two groups of different inputs that both accept only a few sizes; None if none are tied.

    Strides of 4 and 6 round 40 to 43 and 60 to 65 to one length, 10. If 44 is accepted with 66,
    then the one is `L` and the other may be `6*(L//4)`. The example has that size afterwards.
    """
    for leader, follower in permutations(groups, 2):
        if leader.ties or follower.ties or not _are_of_different_inputs(leader, follower):
            continue
        run, other = _run(leader), _run(follower)
        if run is None or other is None:
            continue
        changed = _with_size_of_rule(example, follower, other.first, probe)
        rule = rule_of_runs(run, other.length, other.first)
        ties = tuple(Tie(axis, rule) for axis in follower.axes)
        tied = make_group(changed, leader.axes, ties=ties)
        if all(try_size(changed.call, tied, size, probe) for size in run.outside):
            others = [group for group in groups if group is not follower]
            return changed, [tied if group is leader else group for group in others]
    return None


def _run(group: AxisGroup) -> Run | None:
    """Return the consecutive sizes that a group accepts, if they are few and have both ends."""
    dim = group.free_dim()
    if dim is None or dim.high is None or dim.step > 1 or dim.low < 2:
        return None
    length = dim.high - dim.low + 1
    if length > min(MAX_RUN, dim.low):
        return None
    return Run(dim.low, length)


def _with_size_of_rule(example: Example, group: AxisGroup, size: int, probe: Probe) -> Example:
    """Return the example with this size of the group, which the group accepted."""
    call = resized(example.call, group.axes, size)
    observation = probe(call)
    if isinstance(observation, Accepted):
        return replace(example, call=call, result=observation.result)
    return example
