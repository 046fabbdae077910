"""Axes: which dims of an accepted call are free, found by probing, and how the output sizes follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from composecli.core.contract import Contract, Port, fresh_name
from composecli.core.dims import Fixed, Free, Shape, admits, example_size
from composecli.core.observations import Accepted, Rejected
from composecli.core.pytree import Axis, Call, KeyPath, call_leaves, leaves, resized
from composecli.inference.axis_groups import (
    AxisGroup,
    Example,
    groups_of,
    listed,
    same_structure,
    with_sizes,
)
from composecli.inference.bounds import find_bounds
from composecli.inference.output_dims import (
    Seen,
    at,
    disambiguate,
    invalidate,
    move_together,
    output_port,
)
from composecli.inference.prober import Run


@dataclass(frozen=True, slots=True)
class ExploredAxes:
    """`together` are axes whose largest sizes are taken one at a time and not at once."""

    inputs: Mapping[KeyPath, Shape]
    outputs: tuple[Port, ...]
    notes: tuple[str, ...]
    together: tuple[Axis, ...] = ()


def explore_axes(start: Example, run: Run) -> ExploredAxes:
    """Vary every axis that is not fixed, fit the output sizes to what was seen, and hold both against sizes that were
    not tried before."""
    groups = list(groups_of(start, run))
    _name(start, groups)
    for number, group in enumerate(groups):
        find_bounds(
            start,
            group,
            run,
            next((other for other in groups[:number] if _alike(other, group)), None),
        )
    for group in groups:
        disambiguate(start.call, group, run)
    together = _coupled(start, groups, run)
    _raise_lows(start, groups, run)
    explored = _conclude(start, groups, run)
    for sizes, seen in _held_out(start, groups, run):
        if isinstance(seen, Rejected):
            for group in _to_blame(
                start, [group for group in groups if group.name in sizes], sizes, run
            ):
                group.unknown_reason = f"it is refused at {at(sizes)}"
            explored = _conclude(start, groups, run)
            continue
        explored = replace(
            explored, outputs=invalidate(explored.outputs, tuple(leaves(seen.result)), sizes)
        )
    return replace(explored, together=together)


def _conclude(start: Example, groups: list[AxisGroup], run: Run) -> ExploredAxes:
    base = tuple(leaves(start.result))
    dims = _input_dims(start, groups)
    stable = all(
        same_structure(base, found) for group in groups for found in group.accepted.values()
    )
    seen = Seen(base, stable, move_together(start.call, groups, base, run) if stable else {})
    outputs = tuple(output_port(number, seen, groups) for number in range(len(base)))
    return ExploredAxes(dims, outputs, tuple(_notes(groups)))


def _name(start: Example, groups: list[AxisGroup]) -> None:
    used = {group.name for group in groups}
    specs = dict(call_leaves(start.call))
    for group in groups:
        if not group.name:
            path, axis = group.axes[0]
            group.name = fresh_name(specs[path], axis, used)


def _alike(one: AxisGroup, other: AxisGroup) -> bool:
    """Whether two groups are likely to end at the same sizes: height and width, two batches, two lengths."""
    return one.base == other.base and min(one.axes[0][1], 1) == min(other.axes[0][1], 1)


def _coupled(start: Example, groups: list[AxisGroup], run: Run) -> tuple[Axis, ...]:
    """The axes with an end each that are not taken at their ends all at once; none where they are."""
    dims = [(group, dim) for group in groups if isinstance(dim := group.dim(), Free)]
    ends = [
        (group, dim.high - dim.high % group.step) for group, dim in dims if dim.high is not None
    ]
    if len(ends) < 2 or any(group.stated is not None for group, _ in ends):
        return ()
    if isinstance(run(with_sizes(start.call, ends)), Rejected):
        return tuple(axis for group, _ in ends for axis in group.axes)
    return ()


def _found_free(groups: list[AxisGroup]) -> Iterator[tuple[AxisGroup, Free]]:
    """The groups that were found to be free, not those that are stated to be."""
    for group in groups:
        dim = group.dim()
        if isinstance(dim, Free) and group.stated is None:
            yield group, dim


def _raise_lows(start: Example, groups: list[AxisGroup], run: Run) -> None:
    """Smallest sizes that are taken one at a time and not all at once are no smallest sizes: the least that are."""
    free = list(_found_free(groups))
    for floor in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64):
        lows = [(group, _lowest_from(group, dim, floor)) for group, dim in free]
        seen = run(with_sizes(start.call, lows))
        if isinstance(seen, Accepted):
            for group, low in lows:
                group.floor = low
            return
        if not isinstance(seen, Rejected) or seen.out_of_memory:
            return


def _lowest_from(group: AxisGroup, dim: Free, floor: int) -> int:
    """The smallest size from `floor` on, no larger than the base."""
    return (
        dim.low
        if group.axes[0][1] == 0
        else min(group.base, example_size(dim, max(dim.low, floor)))
    )


def _held_out(
    start: Example, groups: list[AxisGroup], run: Run
) -> Iterator[tuple[Mapping[str, int], Accepted | Rejected]]:
    """Calls at sizes that were not tried before, with what came of them: what was concluded is held against them."""
    free = list(_found_free(groups))
    for choose in (_between, _farther) if free else ():
        sizes = [(group, choose(group, dim)) for group, dim in free]
        seen = run(with_sizes(start.call, sizes))
        if isinstance(seen, Accepted) or (isinstance(seen, Rejected) and not seen.out_of_memory):
            yield {group.name: size for group, size in sizes}, seen


def _to_blame(
    start: Example, groups: list[AxisGroup], sizes: Mapping[str, int], run: Run
) -> list[AxisGroup]:
    """The groups without whose size a call that is refused would be taken; all of them where there is no such one."""
    found = list[AxisGroup]()
    for spared in groups:
        chosen = ((group, group.base if group is spared else sizes[group.name]) for group in groups)
        if isinstance(run(with_sizes(start.call, chosen)), Accepted):
            found.append(spared)
    return found or groups


def _between(group: AxisGroup, dim: Free) -> int:
    """A size that was not tried: somewhat above the base, or below it where that is the end."""
    near = group.base + (3 if group.axes[0][1] else 2) * dim.step
    sizes: list[int] = [
        *range(near, near + 4 * dim.step, dim.step),
        *range(group.base, dim.low, -dim.step),
    ]
    untried = (size for size in sizes if admits(dim, size) and size not in group.accepted)
    return next(untried, group.base)


def _farther(group: AxisGroup, dim: Free) -> int:
    """A size that was not tried, about in the middle of the largest that was taken; the base for a batch."""
    if group.axes[0][1] == 0:
        return group.base
    middle = (group.base + max(group.accepted)) // 2
    middle -= middle % dim.step
    sizes: list[int] = [*range(middle, group.base, -dim.step)][:8]
    return next(
        (size for size in sizes if admits(dim, size) and size not in group.accepted), group.base
    )


def _input_dims(start: Example, groups: list[AxisGroup]) -> dict[KeyPath, Shape]:
    by_axis = {axis: group.dim() for group in groups for axis in group.axes}
    found = dict[KeyPath, Shape]()
    for path, spec in call_leaves(start.call):
        known = start.stated.get(path, tuple(map(Fixed, spec.sizes)))
        found[path] = tuple(by_axis.get((path, axis), dim) for axis, dim in enumerate(known))
    return found


def _notes(groups: list[AxisGroup]) -> Iterator[str]:
    for group in groups:
        if len(group.accepted) > 1:
            refused = f", refused {listed(group.refused)}" if group.refused else ""
            yield f"{group.name} took {listed(list(group.accepted))}{refused}"


def larger_batch(contract: Contract, call: Call) -> Call | None:
    """The call with one more along axis 0 of every input; None where axis 0 is not free under one name."""
    ports = [port for port in contract.required if port.dims != ()]
    firsts = [Free("N") if port.dims is None else port.dims[0] for port in ports]
    specs = dict(call_leaves(call))
    sizes = {specs[port.path].sizes[0] for port in ports}
    if not firsts or len(sizes) != 1 or any(dim != firsts[0] for dim in firsts):
        return None
    size = sizes.pop() + 1
    if not isinstance(firsts[0], Free) or not admits(firsts[0], size):
        return None
    return resized(call, tuple((port.path, 0) for port in ports), size)
