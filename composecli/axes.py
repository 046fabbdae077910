"""Axes: which dims of an accepted call are free, found by probing, and how the output sizes follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

from composecli.contract import Contract, Port, fresh_name, output_name
from composecli.dims import (
    Dim,
    Fixed,
    Free,
    Shape,
    Symbol,
    Unknown,
    admits,
    as_dim,
    as_expr,
    evaluate,
    example_size,
    symbols,
)
from composecli.fit import Moved, SizeRule, candidates, jointly, splitting_size
from composecli.observations import Accepted, Refused
from composecli.trees import Axis, Call, Path, TensorSpec, call_leaves, leaves, resized
from composecli.variation import (
    Group,
    Leaves,
    Run,
    Start,
    allowed,
    column,
    groups_of,
    listed,
    same_structure,
    try_size,
    vary,
)

MOST_SPLITS = 12
SPLIT_RANGE = 70
REACH = 4
MOST_COMPARISONS = 200_000


@dataclass(frozen=True, slots=True)
class Explored:
    """`together` are axes whose largest sizes are taken one at a time and not at once."""

    inputs: Mapping[Path, Shape]
    outputs: tuple[Port, ...]
    notes: tuple[str, ...]
    together: tuple[Axis, ...] = ()


def explore(start: Start, run: Run) -> Explored:
    """Vary every axis that is not fixed, fit the output sizes to what was seen, and hold both against sizes that were
    not tried before."""
    base = tuple(leaves(start.result))
    groups = list(groups_of(start, run))
    _name(start, groups)
    for number, group in enumerate(groups):
        group.accepted[group.base] = base
        vary(start, group, run, next((other for other in groups[:number] if _alike(other, group)), None))
    for group in groups:
        _split(start.call, group, run)
    together = _coupled(start, groups, run)
    _raise_lows(start, groups, run)
    explored = _conclude(start, groups, run)
    for sizes, seen in _held_out(start, groups, run):
        if isinstance(seen, Refused):
            for group in _to_blame(start, [group for group in groups if group.name in sizes], sizes, run):
                group.why_open = f"it is refused at {_at(sizes)}"
            explored = _conclude(start, groups, run)
            continue
        explored = replace(explored, outputs=_corrected(explored.outputs, tuple(leaves(seen.result)), sizes))
    return replace(explored, together=together)


def _conclude(start: Start, groups: list[Group], run: Run) -> Explored:
    base = tuple(leaves(start.result))
    dims = _input_dims(start, groups)
    stable = all(same_structure(base, found) for group in groups for found in group.accepted.values())
    seen = _Seen(base, stable, _move_together(start.call, groups, base, run) if stable else {})
    outputs = tuple(_output_port(number, seen, groups) for number in range(len(base)))
    return Explored(dims, outputs, tuple(_notes(groups)))


def _name(start: Start, groups: list[Group]) -> None:
    used = {group.name for group in groups}
    specs = dict(call_leaves(start.call))
    for group in groups:
        if not group.name:
            path, axis = group.axes[0]
            group.name = fresh_name(specs[path], axis, used)


def _alike(one: Group, other: Group) -> bool:
    """Whether two groups are likely to end at the same sizes: height and width, two batches, two lengths."""
    return one.base == other.base and min(one.axes[0][1], 1) == min(other.axes[0][1], 1)


def _coupled(start: Start, groups: list[Group], run: Run) -> tuple[Axis, ...]:
    """The axes with an end each that are not taken at their ends all at once; none where they are."""
    ends = {group.name: (group, dim) for group in groups if isinstance(dim := group.conclusion(), Free)}
    bounded = {name: (group, dim.high) for name, (group, dim) in ends.items() if dim.high is not None}
    if len(bounded) < 2 or any(group.stated is not None for group, _ in bounded.values()):
        return ()
    call = start.call
    for group, high in bounded.values():
        call = resized(call, group.axes, high - high % group.step)
    if isinstance(run(call), Refused):
        return tuple(axis for group, _ in bounded.values() for axis in group.axes)
    return ()


def _raise_lows(start: Start, groups: list[Group], run: Run) -> None:
    """Smallest sizes that are taken one at a time and not all at once are no smallest sizes: the least that are."""
    bounds = [(group, dim) for group in groups if isinstance(dim := group.conclusion(), Free) and group.stated is None]
    for floor in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64):
        call = start.call
        for group, dim in bounds:
            call = resized(call, group.axes, _lowest_from(group, dim, floor))
        seen = run(call)
        if isinstance(seen, Accepted):
            for group, dim in bounds:
                group.floor = _lowest_from(group, dim, floor)
            return
        if not isinstance(seen, Refused) or seen.out_of_memory:
            return


def _lowest_from(group: Group, dim: Free, floor: int) -> int:
    """The smallest size from `floor` on, no larger than the base."""
    return dim.low if group.axes[0][1] == 0 else min(group.base, example_size(dim, max(dim.low, floor)))


def _held_out(start: Start, groups: list[Group], run: Run) -> Iterator[tuple[Mapping[str, int], Accepted | Refused]]:
    """Calls at sizes that were not tried before, with what came of them: what was concluded is held against them."""
    free = [(group, dim) for group in groups if isinstance(dim := group.conclusion(), Free) and group.stated is None]
    for choose in (_between, _farther):
        sizes = {group.name: choose(group, dim) for group, dim in free}
        call = start.call
        for group, _ in free:
            call = resized(call, group.axes, sizes[group.name])
        seen = run(call) if free else None
        if isinstance(seen, Accepted) or (isinstance(seen, Refused) and not seen.out_of_memory):
            yield sizes, seen


def _to_blame(start: Start, groups: list[Group], sizes: Mapping[str, int], run: Run) -> list[Group]:
    """The groups without whose size a call that is refused would be taken; all of them where there is no such one."""
    found = list[Group]()
    for spared in groups:
        call = start.call
        for group in groups:
            call = resized(call, group.axes, group.base if group is spared else sizes[group.name])
        if isinstance(run(call), Accepted):
            found.append(spared)
    return found or groups


def _at(sizes: Mapping[str, int]) -> str:
    return " with ".join(f"{name} = {size}" for name, size in sizes.items())


def _between(group: Group, dim: Free) -> int:
    """A size that was not tried: somewhat above the base, or below it where that is the end."""
    near = group.base + (3 if group.axes[0][1] else 2) * dim.step
    sizes: list[int] = [*range(near, near + 4 * dim.step, dim.step), *range(group.base, dim.low, -dim.step)]
    untried = (size for size in sizes if admits(dim, size) and size not in group.accepted)
    return next(untried, group.base)


def _farther(group: Group, dim: Free) -> int:
    """A size that was not tried, about in the middle of the largest that was taken; the base for a batch."""
    if group.axes[0][1] == 0:
        return group.base
    middle = (group.base + max(group.accepted)) // 2
    middle -= middle % dim.step
    sizes: list[int] = [*range(middle, group.base, -dim.step)][:8]
    return next((size for size in sizes if admits(dim, size) and size not in group.accepted), group.base)


def _corrected(ports: tuple[Port, ...], seen: Leaves, sizes: Mapping[str, int]) -> tuple[Port, ...]:
    """The output ports, with each dim that is another at these sizes made unknown."""
    if not same_structure(tuple((port.path, _like(port)) for port in ports), seen):
        reason = f"the result has another structure at {_at(sizes)}"
        return tuple(replace(port, dims=tuple(Unknown(reason) for _ in port.dims or ())) for port in ports)
    found = list[Port]()
    for port, (_, spec) in zip(ports, seen, strict=True):
        dims = tuple(_held(dim, size, sizes) for dim, size in zip(port.dims or (), spec.sizes, strict=True))
        found.append(replace(port, dims=dims))
    return tuple(found)


def _like(port: Port) -> TensorSpec:
    return TensorSpec(port.dtype, (0,) * len(port.dims or ()))


def _held(dim: Dim, size: int, sizes: Mapping[str, int]) -> Dim:
    expr = as_expr(dim)
    if expr is None or not symbols(expr) <= sizes.keys() or evaluate(expr, sizes) == size:
        return dim
    return Unknown(f"by what was seen first {dim}, and {size} at {_at(sizes)}")


def _split(call: Call, group: Group, run: Run) -> None:
    """Probe the sizes that tell the expressions apart which still fit an output axis."""
    for _ in range(MOST_SPLITS):
        open_fits = [rules for rules in _fits(group) if len(rules) > 1]
        tried = group.accepted.keys() | group.refused
        sizes = [size for size in _telling(group, max(map(len, open_fits), default=0)) if size not in tried]
        size = next(filter(None, (splitting_size(rules, sizes) for rules in open_fits)), None)
        if size is None:
            return
        try_size(call, group, size, run)


def _telling(group: Group, rules: int) -> list[int]:
    """Sizes at which rules may be told apart: those that are admitted, up to a few times the base; not all of them
    where there are very many rules to hold against each."""
    reach = max(SPLIT_RANGE * group.step, REACH * group.base)
    dim = group.conclusion()
    low, high = (dim.low, dim.high) if isinstance(dim, Free) else (group.base, None)
    last = min(high or group.base + reach, group.base + reach)
    first = max(low, group.base - reach)
    sizes = [size for size in range(first + -first % group.step, last + 1, group.step) if allowed(group, size)]
    near = [size for size in sizes if abs(size - group.base) <= SPLIT_RANGE]
    stride = 1 + rules * len(sizes) // MOST_COMPARISONS
    return sorted({*near, *sizes[::stride]} if stride > 1 else sizes)


def _fits(group: Group) -> Iterator[tuple[SizeRule, ...]]:
    base = group.accepted[group.base]
    if not all(same_structure(base, found) for found in group.accepted.values()):
        return
    for number, (_, spec) in enumerate(base):
        for axis in range(len(spec.sizes)):
            yield candidates(column(group, number, axis))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the base call returned, and what calls with several symbols moved at once did, with their sizes.

    `stable`: every call that was accepted returned the same structure.
    """

    base: Leaves
    stable: bool
    moved: Mapping[frozenset[str], tuple[Mapping[str, int], Leaves]]


def _move_together(
    call: Call, groups: list[Group], base: Leaves, run: Run
) -> dict[frozenset[str], tuple[Mapping[str, int], Leaves]]:
    """One forward for each set of symbols that some output axis changes with, all of them at another size."""
    found = dict[frozenset[str], tuple[Mapping[str, int], Leaves]]()
    for number, (_, spec) in enumerate(base):
        for axis in range(len(spec.sizes)):
            moving = _moving(number, axis, groups)
            names = frozenset(group.name for group in moving)
            if len(moving) < 2 or names in found:
                continue
            changed, sizes = call, dict[str, int]()
            for group in moving:
                sizes[group.name] = _nearest_that_moves(group, number, axis)
                changed = resized(changed, group.axes, sizes[group.name])
            seen = run(changed)
            if isinstance(seen, Accepted) and same_structure(base, tuple(leaves(seen.result))):
                found[names] = (sizes, tuple(leaves(seen.result)))
    return found


def _nearest_that_moves(group: Group, number: int, axis: int) -> int:
    """The size closest to the base that gives this output axis another size."""
    seen = column(group, number, axis)
    moved = [size for size, value in seen.items() if value != seen[group.base]]
    return min(moved, key=lambda size: abs(size - group.base))


def _input_dims(start: Start, groups: list[Group]) -> dict[Path, Shape]:
    by_axis = {axis: group.conclusion() for group in groups for axis in group.axes}
    found = dict[Path, Shape]()
    for path, spec in call_leaves(start.call):
        known = start.stated.get(path, tuple(map(Fixed, spec.sizes)))
        found[path] = tuple(by_axis.get((path, axis), dim) for axis, dim in enumerate(known))
    return found


def _output_port(number: int, seen: _Seen, groups: list[Group]) -> Port:
    path, spec = seen.base[number]
    if not seen.stable:
        dims: Shape = tuple(Unknown("the structure of the result changes with the input") for _ in spec.sizes)
    else:
        dims = tuple(_output_dim(number, axis, size, groups, seen) for axis, size in enumerate(spec.sizes))
    return Port(output_name(path), path, spec.dtype, dims)


def _rules(group: Group, number: int, axis: int) -> tuple[SizeRule, ...]:
    """The rule of an output axis, none where several are left. Those that agree on every size that is admitted are
    one: the plainest, and the one that divides by the step (where N%8==0, N and 8*(N//8) are the same)."""
    rules = candidates(column(group, number, axis))
    if len(rules) > 1:
        if not isinstance(group.conclusion(), Free) or splitting_size(rules, _telling(group, len(rules))) is not None:
            return ()
        stepped = (rule for rule in rules if rule.divisor == group.step and rule.shift == 0)
        return tuple(dict.fromkeys((rules[0], next(stepped, rules[0]))))
    return rules


def _moving(number: int, axis: int, groups: list[Group]) -> list[Group]:
    return [group for group in groups if len(set(column(group, number, axis).values())) > 1]


def _output_dim(number: int, axis: int, size: int, groups: list[Group], seen: _Seen) -> Dim:
    moving = _moving(number, axis, groups)
    if not moving:
        return Fixed(size)
    unsettled = [group.name for group in moving if not isinstance(group.conclusion(), Free)]
    if unsettled:
        return Unknown(f"changes with {', '.join(unsettled)}")
    if len(moving) > 1:
        return _joint_dim(number, axis, moving, seen)
    rules = _rules(moving[0], number, axis)
    if not rules:
        return Unknown(f"changes with {moving[0].name}, by no single rule found")
    expr = rules[0].expr(moving[0].name)
    return moving[0].conclusion() if expr == Symbol(moving[0].name) else as_dim(expr)


def _joint_dim(number: int, axis: int, moving: list[Group], seen: _Seen) -> Dim:
    names = tuple(group.name for group in moving)
    unknown = Unknown(f"changes with {' and '.join(names)}, by no rule found")
    if frozenset(names) not in seen.moved:
        return unknown
    sizes, moved = seen.moved[frozenset(names)]
    base = Moved({group.name: group.base for group in moving}, seen.base[number][1].sizes[axis])
    for rules in product(*(_rules(group, number, axis) for group in moving)):
        parts = {name: rule.expr(name) for name, rule in zip(names, rules, strict=True)}
        expr = jointly(parts, base, Moved(sizes, moved[number][1].sizes[axis]))
        if expr is not None:
            return as_dim(expr)
    return unknown


def _notes(groups: list[Group]) -> Iterator[str]:
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
