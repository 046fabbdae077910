"""Find which axes of an accepted call may change size, and which must change together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from composecli.core.dims import Free, as_free, example_size
from composecli.core.observations import Rejected
from composecli.core.pytree import Axis, Call, call_leaves
from composecli.inference.axis_groups import (
    AxisGroup,
    Example,
    make_group,
    try_size,
    with_sizes,
)
from composecli.inference.prober import Probe
from composecli.inference.squares import next_squares
from composecli.inference.ties import find_ties

# The stride of most image backbones: a model that requires multiples of 32 accepts the next one.
STRIDE = 32
# Fewer axes of one size are one group, or none.
MIN_SPLIT = 4

# Whether the model accepts another size of a group.
Test = Callable[[Call, AxisGroup, Probe], bool]


def groups_of(example: Example, probe: Probe) -> Iterator[AxisGroup]:
    """Yield the groups of axes that change size together: stated ones first, then by axis.

    An axis that changes size alone is a group of its own. Axes of equal size that only change
    together are one group, and axes of several inputs whose sizes follow from each other are one
    group with ties. A group that does not change in any way that was tried accepts its base size
    only.

    A model that concatenates `float32[2, 5, 8]` and `float32[2, 7, 8]` along axis 1 and applies
    `Linear(8, 3)`:

        (0, 0) and (1, 0), base 2    neither accepts 3 alone, both together do: one group
        (0, 1), base 5               accepts 6: a group
        (1, 1), base 7               accepts 8: a group
        (0, 2), base 8               fixed by the weight; if that is not known, it accepts only 8
        (1, 2), base 8               likewise
    """
    axes = _unstated_axes(example)
    singles = [make_group(example, (axis,)) for axis in axes]
    for stated in _stated_groups(example):
        group = _with_unstated_axes(example, stated, singles, probe)
        singles = _outside([group], singles)
        yield group
    tied = list(_tied_inputs(example, singles, probe))
    stuck = list[AxisGroup]()
    for group in _outside(tied, singles):
        if not changes_size(example.call, group, probe):
            stuck.append(group)
    tied += _tied_axes(example, stuck, probe)
    stuck = _outside(tied, stuck)
    tied += _tied_by_rules(example, stuck, _outside(stuck, singles), probe)
    groups = [*_outside(tied, singles), *tied]
    groups.sort(key=lambda group: axes.index(group.axes[0]))
    yield from groups


def _stated_groups(example: Example) -> Iterator[AxisGroup]:
    """Yield one group for each name of the stated free dims."""
    axes_by_name = dict[str, list[Axis]]()
    first_dims = dict[str, Free]()
    for path, dims in example.stated.items():
        for axis, dim in enumerate(dims):
            free = as_free(dim)
            if free is not None and free.name not in example.related:
                first_dims.setdefault(free.name, free)
                axes_by_name.setdefault(free.name, []).append((path, axis))
    for name, axes in axes_by_name.items():
        yield make_group(example, tuple(axes), first_dims[name])


def _with_unstated_axes(
    example: Example, stated: AxisGroup, singles: list[AxisGroup], probe: Probe
) -> AxisGroup:
    """Return the stated group with the same axis of other inputs, if they only change together."""
    assert stated.stated is not None
    size = example_size(stated.stated, stated.base + 1)
    alike = list[Axis]()
    for single in singles:
        (axis,) = single.axes
        if single.base == stated.base and axis[1] == stated.axes[0][1]:
            alike.append(axis)
    if not alike or size == stated.base or try_size(example.call, stated, size, probe):
        return stated
    together = make_group(example, (*stated.axes, *alike), stated.stated)
    if try_size(example.call, together, size, probe):
        return together
    return stated


def _unstated_axes(example: Example) -> list[Axis]:
    """Return the axes that are neither stated nor known to be fixed, nor empty."""
    axes = list[Axis]()
    for path, spec in call_leaves(example.call):
        if path in example.stated:
            continue
        for axis, size in enumerate(spec.sizes):
            if (path, axis) not in example.fixed and size > 0:
                axes.append((path, axis))
    return axes


def _outside(tied: list[AxisGroup], singles: list[AxisGroup]) -> list[AxisGroup]:
    """Return the single axes that are not part of a tied group."""
    tied_axes = {axis for group in tied for axis in group.all_axes}
    return [group for group in singles if group.axes[0] not in tied_axes]


def changes_size(call: Call, group: AxisGroup, probe: Probe) -> bool:
    """Return whether the group accepts any other size but 1, which may be broadcast."""
    base = group.base
    sizes = [base + 1]
    if base <= 2 * STRIDE:
        sizes.append(2 * base)
    if base > STRIDE:
        sizes += [base + STRIDE, base - STRIDE]
    sizes += [base - 1, base // 2, *next_squares(base)]
    larger_than_one = [size for size in sizes if size > 1]
    return any(try_size(call, group, size, probe) for size in larger_than_one)


def _tied_inputs(example: Example, singles: list[AxisGroup], probe: Probe) -> Iterator[AxisGroup]:
    """Yield the same axis of several inputs, if they accept the next size only together."""
    alike = dict[tuple[int, int], list[AxisGroup]]()
    for group in singles:
        _, axis = group.axes[0]
        axis_and_size = (axis, group.base)
        alike.setdefault(axis_and_size, []).append(group)
    for members in alike.values():
        if len(members) > 1:
            yield from _tied_members(example, members, probe)


def _tied_members(example: Example, members: list[AxisGroup], probe: Probe) -> Iterator[AxisGroup]:
    """Yield those of the members that accept the next size only together.

    The queries of attention grow alone, and keys and values only together.
    """
    loose = list[Axis]()
    held = list[Axis]()
    for group in members:
        next_size = group.base + 1
        kind = held
        if try_size(example.call, group, next_size, probe):
            kind = loose
        kind.append(group.axes[0])
    if not held:
        yield from _tied_by_broadcasting(example, members, probe)
        return
    apart = list(_split(example, held, _accepts_next, probe))
    if apart:
        yield from apart
        return
    for axis in loose:
        pair = make_group(example, (*held, axis))
        if len(loose) > 1 and _accepts_next(example.call, pair, probe):
            yield pair
            return
    together = make_group(example, tuple(group.axes[0] for group in members))
    if _accepts_next(example.call, together, probe):
        yield together


def _tied_by_broadcasting(
    example: Example, members: list[AxisGroup], probe: Probe
) -> Iterator[AxisGroup]:
    """Yield those of the members of size 1 that cannot have two other sizes.

    Each grows alone because the others are broadcast.
    """
    if members[0].base != 1:
        return
    tied = dict[Axis, None]()
    for one, other in combinations(members, 2):
        observation = probe(with_sizes(example.call, [(one, 2), (other, 3)]))
        if isinstance(observation, Rejected):
            tied |= dict.fromkeys((*one.axes, *other.axes))
    if tied:
        together = make_group(example, tuple(tied))
        if _accepts_next(example.call, together, probe):
            yield together


def _accepts_next(call: Call, group: AxisGroup, probe: Probe) -> bool:
    """Return whether the group accepts the next size."""
    return try_size(call, group, group.base + 1, probe)


def _split(example: Example, axes: Sequence[Axis], test: Test, probe: Probe) -> Iterator[AxisGroup]:
    """Yield the axes as one group that passes the test, or as several if pairs of them pass it.

    A mask `(T, S)` beside queries `(T, 16)` and keys `(S, 16)` has the sizes of both, and all four
    axes change together, too, if T and S are equal.
    """
    remaining = list(axes)
    while len(remaining) >= MIN_SPLIT:
        first, *others = remaining
        pairs = (make_group(example, (first, other)) for other in others)
        pair = next((pair for pair in pairs if test(example.call, pair, probe)), None)
        if pair is None:
            break
        yield pair
        remaining = _without(remaining, pair.axes)
    if len(remaining) > 1:
        whole = make_group(example, tuple(remaining))
        if test(example.call, whole, probe):
            yield whole


def _tied_axes(example: Example, stuck: list[AxisGroup], probe: Probe) -> Iterator[AxisGroup]:
    """Yield groups of stuck axes of one size: the same axis of several inputs first, then any."""
    axes_by_size = dict[int, list[Axis]]()
    for group in stuck:
        first_axis = group.axes[0]
        axes_by_size.setdefault(group.base, []).append(first_axis)
    for axes in axes_by_size.values():
        remaining = list(axes)
        numbers = {number for _, number in axes}
        for number in sorted(numbers):
            same_number = [axis for axis in remaining if axis[1] == number]
            if not 1 < len(same_number) < len(axes):
                continue
            group = make_group(example, tuple(same_number))
            if changes_size(example.call, group, probe):
                yield group
                remaining = _without(remaining, same_number)
        yield from _split(example, remaining, changes_size, probe)


def _tied_by_rules(
    example: Example, stuck: list[AxisGroup], others: list[AxisGroup], probe: Probe
) -> list[AxisGroup]:
    """Return the groups of axes whose sizes differ and change together, if there are any."""
    inputs = list(call_leaves(example.call))
    if len(inputs) < 2 or not stuck:
        return []
    stuck_axes = [group.axes[0] for group in stuck]
    loose_axes = [group.axes[0] for group in others]
    return list(find_ties(example, stuck_axes, loose_axes, probe))


def _without(axes: Sequence[Axis], removed: Sequence[Axis]) -> list[Axis]:
    """Return the axes that are not removed."""
    return [axis for axis in axes if axis not in removed]
