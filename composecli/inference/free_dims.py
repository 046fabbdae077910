"""Find which dims of an accepted call are free, by probing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace

from composecli.core.contract import Port, fresh_name
from composecli.core.dims import (
    Dim,
    Fixed,
    Free,
    Shape,
    admits,
    example_size,
    largest_size,
    sizes_between,
)
from composecli.core.observations import (
    Accepted,
    Observation,
    Rejected,
    RejectionKind,
    Untried,
)
from composecli.core.pytree import Axis, Call, KeyPath, call_leaves, leaves, size_of
from composecli.core.relations import Where
from composecli.core.size_expr import evaluate, symbols
from composecli.inference.axis_groups import (
    AxisGroup,
    Example,
    Tie,
    join_sizes,
    try_size,
    with_sizes,
)
from composecli.inference.borrowed_limits import (
    find_borrowed,
    tie_runs,
    with_equal_sizes,
    withdraw,
)
from composecli.inference.bounds import explain_holes, find_bounds
from composecli.inference.grouping import STRIDE, groups_of
from composecli.inference.orders import find_orders
from composecli.inference.output_dims import (
    Results,
    changed_structure,
    disambiguate,
    format_sizes,
    invalidate,
    probe_jointly,
    to_output_port,
)
from composecli.inference.prober import Probe
from composecli.inference.ties import tied_dim

# Lower bounds that are tried for all groups at once.
_FLOORS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64)
MAX_FAR_SIZES = 8
MAX_STEPS = 24
_SMALL_PRIMES = (2, 3, 5, 7)

FreeGroup = tuple[AxisGroup, Free]


@dataclass(frozen=True, slots=True)
class ExploredAxes:
    """The dims of inputs, by path, and the output ports.

    `example` is the example at which they hold: a tied axis may have another size than it had.
    `coupled` are axes whose upper bounds hold separately but not jointly. `equalized` is the same
    example with equal sizes of axes that limit each other. `where` are relations between the dims.
    """

    example: Example
    inputs: Mapping[KeyPath, Shape]
    outputs: tuple[Port, ...]
    notes: tuple[str, ...]
    coupled: tuple[Axis, ...] = ()
    equalized: Example | None = None
    where: Where = ()


def explore_axes(example: Example, probe: Probe) -> ExploredAxes:
    """Vary every axis that is not fixed, and derive the dims of inputs and outputs.

    The conclusions are checked at sizes that were not tried before.

    `Conv2d(3, 8, 3, stride=2, padding=1)` accepted `float32[2, 3, 64, 64]` and returned
    `float32[2, 8, 32, 32]`:

        groups     (0, 0), (0, 2) and (0, 3) accept 3, 65 and 65; (0, 1) is fixed by the weight
        names      N, H, W
        bounds     N, H and W from 1, with no end found
        outputs    axis 0 is N; axis 2 was 1, 32, 33, 128 at H = 1, 64, 65, 256: ceil(H/2)
        check      N=4, H=67, W=67 and N=2, H=160, W=160 return the predicted sizes

    The input is `N, 3, H, W` and the output `N, 8, ceil(H/2), ceil(W/2)`.
    """
    groups = list(groups_of(example, probe))
    _explore_groups(example, groups, probe)
    tied = tie_runs(example, groups, probe)
    while tied is not None:
        example, groups = tied
        _explore_groups(example, groups, probe)
        tied = tie_runs(example, groups, probe)
    borrowed = find_borrowed(groups, example, probe)
    orders = find_orders(borrowed, example, probe)
    ordered = [group for order in orders for group in order]
    borrowed = [each for each in borrowed if each.group not in ordered]
    equal = with_equal_sizes(example, borrowed, probe)
    withdraw(borrowed)
    coupled = _coupled_axes(example, groups, probe)
    _raise_lower_bounds(example, groups, probe)
    explored = _conclude(example, groups, probe)
    explored = replace(explored, where=tuple(order.relation for order in orders))
    explored = _check_at_new_sizes(example, groups, explored, probe)
    return replace(explored, coupled=coupled, equalized=equal)


def _explore_groups(example: Example, groups: list[AxisGroup], probe: Probe) -> None:
    """Name the groups, and find the bounds of each and its output sizes."""
    _name_groups(example, groups)
    _find_all_bounds(example, groups, probe)
    for group in groups:
        disambiguate(example.call, group, probe)
        if explain_holes(example, group, probe):
            disambiguate(example.call, group, probe)


def _name_groups(example: Example, groups: list[AxisGroup]) -> None:
    """Name the groups that have no stated name by the conventions of the field."""
    used = {group.name for group in groups}
    specs = dict(call_leaves(example.call))
    for group in groups:
        if not group.name:
            path, axis = group.axes[0]
            layout = example.layouts.get(path, "")
            group.assign_name(fresh_name(specs[path], axis, used, layout))


def _find_all_bounds(example: Example, groups: list[AxisGroup], probe: Probe) -> None:
    """Find the bounds of each group, with the first similar group before it as a hint."""
    for number, group in enumerate(groups):
        earlier = groups[:number]
        alike = (other for other in earlier if _are_alike(other, group))
        similar = next(alike, None)
        find_bounds(example, group, probe, similar)


def _are_alike(one: AxisGroup, other: AxisGroup) -> bool:
    """Return whether two groups probably have the same ends: height and width, two batches."""
    if one.base != other.base:
        return False
    return one.is_batch == other.is_batch


def _coupled_axes(example: Example, groups: list[AxisGroup], probe: Probe) -> tuple[Axis, ...]:
    """Return the axes whose upper bounds hold separately but not jointly."""
    ends = list[tuple[AxisGroup, int]]()
    for group in groups:
        dim = group.free_dim()
        if dim is None:
            continue
        largest = largest_size(dim)
        if largest is not None:
            ends.append((group, largest))
    if len(ends) < 2:
        return ()
    if any(group.stated is not None for group, _ in ends):
        return ()
    call = with_sizes(example.call, ends)
    observation = probe(call)
    if not isinstance(observation, Rejected):
        return ()
    axes = list[Axis]()
    for group, _ in ends:
        axes += group.axes
    return tuple(axes)


def _explored_free(groups: list[AxisGroup]) -> list[FreeGroup]:
    """Return the groups that were found to be free, without those that are stated to be."""
    explored = list[FreeGroup]()
    for group in groups:
        dim = group.free_dim()
        if dim is not None and group.stated is None:
            explored.append((group, dim))
    return explored


def _raise_lower_bounds(example: Example, groups: list[AxisGroup], probe: Probe) -> None:
    """Raise lower bounds that hold separately but not jointly, until they hold jointly."""
    free = _explored_free(groups)
    too_low = 0
    for floor in _FLOORS:
        observation = probe(_call_at_lowest(example, free, floor))
        if isinstance(observation, Accepted):
            lowest = _lowest_joint_floor(example, free, (too_low, floor), probe)
            for group, dim in free:
                group.raise_floor(_lowest_from(group, dim, lowest))
            return
        if not _is_rejected_by_model(observation):
            return
        too_low = floor


def _lowest_joint_floor(
    example: Example, free: list[FreeGroup], between: tuple[int, int], probe: Probe
) -> int:
    """Return the smallest floor at which the model accepts all groups, found by bisection.

    `between` are a floor that it refuses and a higher one that it accepts.
    """
    too_low, accepted = between
    while accepted - too_low > 1:
        middle = (too_low + accepted) // 2
        observation = probe(_call_at_lowest(example, free, middle))
        if isinstance(observation, Accepted):
            accepted = middle
        else:
            too_low = middle
    return accepted


def _call_at_lowest(example: Example, free: list[FreeGroup], floor: int) -> Call:
    """Return the call with each group at its smallest size from `floor` on."""
    lows = [(group, _lowest_from(group, dim, floor)) for group, dim in free]
    return with_sizes(example.call, lows)


def _lowest_from(group: AxisGroup, dim: Free, floor: int) -> int:
    """Return the smallest size from `floor` on, at most the base. A batch keeps its lower bound."""
    if group.is_batch:
        return dim.low
    from_size = max(dim.low, floor)
    lowest = example_size(dim, from_size)
    return min(group.base, lowest)


def _conclude(example: Example, groups: list[AxisGroup], probe: Probe) -> ExploredAxes:
    """Derive all dims from the sizes that the groups accepted."""
    inputs = _input_dims(example, groups)
    base = tuple(leaves(example.result))
    unstable = changed_structure(base, groups)
    results = Results(base, unstable, {}, example.other_values)
    if not unstable:
        joint = probe_jointly(example.call, groups, base, probe)
        results = replace(results, joint=joint)
    outputs = list[Port]()
    for number in range(len(base)):
        port = to_output_port(number, results, groups)
        outputs.append(port)
    notes = tuple(_notes(groups))
    return ExploredAxes(example, inputs, tuple(outputs), notes)


def _check_at_new_sizes(
    example: Example, groups: list[AxisGroup], explored: ExploredAxes, probe: Probe
) -> ExploredAxes:
    """Resize all free groups at once to untried sizes, and withdraw conclusions that fail."""
    for choose_size in (_size_near_base, _size_far_from_base, _multiple_with_few_divisors):
        free = _explored_free(groups)
        if not free:
            return explored
        chosen = list[tuple[AxisGroup, int]]()
        for group, dim in free:
            taken = {size for _, size in chosen}
            chosen.append((group, choose_size(group, dim, taken)))
        chosen = _in_order(chosen, explored.where)
        sizes = {group.name: size for group, size in chosen}
        call = with_sizes(example.call, chosen)
        observation = probe(call)
        if isinstance(observation, Accepted):
            result = tuple(leaves(observation.result))
            outputs = invalidate(explored.outputs, result, sizes)
            explored = replace(explored, outputs=outputs)
        elif _is_rejected_by_model(observation):
            reason = f"it is refused at {format_sizes(sizes)}"
            for group in _groups_to_blame(example, chosen, probe):
                if not _explain_rejection(example, group, sizes[group.name], probe):
                    group.mark_unknown(reason)
            _raise_lower_bounds(example, groups, probe)
            where = explored.where
            explored = replace(_conclude(example, groups, probe), where=where)
    return explored


def _in_order(chosen: list[tuple[AxisGroup, int]], where: Where) -> list[tuple[AxisGroup, int]]:
    """Return the sizes, each at most as large as another one if that is a relation of theirs."""
    sizes = {group.name: size for group, size in chosen}
    for relation in where:
        if relation.symbols <= sizes.keys():
            limit = evaluate(relation.right, sizes)
            for name in symbols(relation.left):
                sizes[name] = min(sizes[name], limit)
    return [(group, sizes[group.name]) for group, _ in chosen]


def _explain_rejection(example: Example, group: AxisGroup, size: int, probe: Probe) -> bool:
    """Look for the pattern of a group that refuses this size alone; return whether it has one."""
    if try_size(example.call, group, size, probe):
        return False
    if not explain_holes(example, group, probe):
        return False
    disambiguate(example.call, group, probe)
    return True


def _is_rejected_by_model(observation: Observation | Untried) -> bool:
    """Return whether a forward was rejected for another reason than a lack of memory."""
    if not isinstance(observation, Rejected):
        return False
    return observation.kind is not RejectionKind.OUT_OF_MEMORY


def _groups_to_blame(
    example: Example, rejected: list[tuple[AxisGroup, int]], probe: Probe
) -> list[AxisGroup]:
    """Return the groups whose size alone causes the failure; all groups if no single one does."""
    blamed = list[AxisGroup]()
    for suspect, _ in rejected:
        sizes = list[tuple[AxisGroup, int]]()
        for group, size in rejected:
            if group is suspect:
                sizes.append((group, group.base))
            else:
                sizes.append((group, size))
        call = with_sizes(example.call, sizes)
        observation = probe(call)
        if isinstance(observation, Accepted):
            blamed.append(suspect)
    return blamed or [group for group, _ in rejected]


def _size_near_base(group: AxisGroup, dim: Free, taken: Set[int]) -> int:
    """Return an untried size shortly above the base, or below it if the base is the upper bound.

    It is none of those `taken` by other groups, if there is another: equal sizes may hide a tie.
    A batch is odd beside an even base: a view takes an even one of many more images.
    """
    steps_above = 3
    if group.is_batch:
        steps_above = 5
    near = group.base + steps_above * dim.step
    above = sizes_between(dim, near, near + 4 * dim.step - 1)
    below = sizes_between(dim, dim.low + 1, group.base)
    sizes = [*above, *reversed(below)]
    sizes.sort(key=taken.__contains__)
    return _first_untried(group, dim, sizes)


def _size_far_from_base(group: AxisGroup, dim: Free, _: Set[int]) -> int:
    """Return an untried size about halfway to the largest accepted one; the base for a batch.

    Models that round down to a multiple of 2, 4, 8, 16 or 32 first fail just below one.
    """
    if group.is_batch:
        return group.base
    largest = max(group.accepted)
    middle = (group.base + largest) // 2
    sizes = sizes_between(dim, group.base + 1, middle)
    sizes.reverse()
    sizes.sort(key=lambda size: (size + 1) % STRIDE != 0)
    return _first_untried(group, dim, sizes[:MAX_FAR_SIZES])


def _multiple_with_few_divisors(group: AxisGroup, dim: Free, _: Set[int]) -> int:
    """Return an untried multiple that no small number divides besides the step; else the base.

    Where the product of several axes is to be divisible, a divisor of one of them is enough. So the
    batch is as small as it may be.
    """
    if group.is_batch:
        return example_size(dim, dim.low)
    if dim.step == 1:
        return group.base
    sizes = list[int]()
    for size in sizes_between(dim, group.base + 1, group.base + MAX_STEPS * dim.step):
        if all(size // dim.step % prime for prime in _SMALL_PRIMES):
            sizes.append(size)
    return _first_untried(group, dim, sizes)


def _first_untried(group: AxisGroup, dim: Free, sizes: list[int]) -> int:
    """Return the first of these sizes that the dim admits and that was not tried; else the base."""
    for size in sizes:
        if admits(dim, size) and size not in group.accepted:
            return size
    return group.base


def _input_dims(example: Example, groups: list[AxisGroup]) -> dict[KeyPath, Shape]:
    """Return the dims of each input: explored, else stated, else fixed."""
    dim_by_axis = dict[Axis, Dim]()
    ties = dict[Axis, list[tuple[AxisGroup, Tie]]]()
    for group in groups:
        group_dim = group.dim()
        dim_by_axis |= dict.fromkeys(group.axes, group_dim)
        for tie in group.ties:
            ties.setdefault(tie.axis, []).append((group, tie))
    for axis_of_tie, found in ties.items():
        size = size_of(example.call, axis_of_tie)
        dim_by_axis[axis_of_tie] = tied_dim(size, found)
    inputs = dict[KeyPath, Shape]()
    for path, spec in call_leaves(example.call):
        fixed = tuple(map(Fixed, spec.sizes))
        known = example.stated.get(path, fixed)
        dims = list[Dim]()
        for axis, known_dim in enumerate(known):
            dim = dim_by_axis.get((path, axis), known_dim)
            dims.append(dim)
        inputs[path] = tuple(dims)
    return inputs


def _notes(groups: list[AxisGroup]) -> Iterator[str]:
    """Yield the sizes that were tried, as evidence."""
    for group in groups:
        if len(group.accepted) < 2:
            continue
        broadcast = [size for size in group.accepted if group.is_broadcast(size)]
        taken = group.accepted.keys() - set(broadcast)
        note = f"{group.name} took {join_sizes(taken)}"
        if broadcast:
            note += f", broadcast {join_sizes(broadcast)}"
        if group.rejected:
            note += f", refused {join_sizes(group.rejected)}"
        yield note
    raised = [group for group in groups if group.is_raised]
    if raised:
        lows = list[str]()
        for group, dim in _explored_free(groups):
            lowest = example_size(dim, dim.low)
            lows.append(f"{group.name} = {lowest}")
        if not lows:
            return
        together = ", ".join(lows)
        yield f"the smallest sizes that it took together: {together}"
