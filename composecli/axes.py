"""Axes: which dims of an accepted call are free, found by probing, and how the output sizes follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from composecli.contract import Contract, Port, output_name
from composecli.dims import Dim, Expr, Fixed, Free, Shape, Symbol, Unknown, admits, as_dim
from composecli.fit import Moved, SizeRule, candidates, jointly, splitting_size
from composecli.observations import Accepted
from composecli.trees import Call, Path, call_leaves, leaves
from composecli.variation import (
    Group,
    Leaves,
    Run,
    Start,
    allowed,
    column,
    groups_of,
    listed,
    resized,
    same_structure,
    try_size,
    vary,
)

MOST_SPLITS = 6
SPLIT_RANGE = 70


@dataclass(frozen=True, slots=True)
class Explored:
    inputs: Mapping[Path, Shape]
    outputs: tuple[Port, ...]
    notes: tuple[str, ...]


def explore(start: Start, run: Run) -> Explored:
    """Vary every axis that is not fixed, and fit the output sizes to what was seen."""
    base = tuple(leaves(start.result))
    groups = list(groups_of(start, run))
    for group in groups:
        group.accepted[group.base] = base
        vary(start.call, group, run)
    for group in groups:
        _split(start.call, group, run)
    dims = _input_dims(start, groups)
    stable = all(same_structure(base, found) for group in groups for found in group.accepted.values())
    seen = _Seen(base, stable, _move_together(start.call, groups, base, run) if stable else {})
    outputs = tuple(_output_port(number, seen, groups) for number in range(len(base)))
    return Explored(dims, outputs, tuple(_notes(groups)))


def _split(call: Call, group: Group, run: Run) -> None:
    """Probe the sizes that tell the expressions apart which still fit an output axis."""
    for _ in range(MOST_SPLITS):
        open_fits = [rules for rules in _fits(group) if len(rules) > 1]
        tried = group.accepted.keys() | group.refused
        sizes = [
            size
            for size in range(group.base + 1, group.base + SPLIT_RANGE)
            if size not in tried and allowed(group, size)
        ]
        size = next(filter(None, (splitting_size(rules, sizes) for rules in open_fits)), None)
        if size is None:
            return
        try_size(call, group, size, run)


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
                sizes[group.name] = max(size for size in group.accepted if size != group.base)
                changed = resized(changed, group.axes, sizes[group.name])
            seen = run(changed)
            if isinstance(seen, Accepted) and same_structure(base, tuple(leaves(seen.result))):
                found[names] = (sizes, tuple(leaves(seen.result)))
    return found


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


def _told_apart(group: Group, number: int, axis: int) -> tuple[SizeRule, ...]:
    """The rules that are left for an output axis. Those that agree on every size that is admitted are one, the
    plainest: where N%8==0, N and 8*(N//8) are the same."""
    rules = candidates(column(group, number, axis))
    dim = group.conclusion()
    if len(rules) < 2 or not isinstance(dim, Free):
        return rules
    last = group.base + SPLIT_RANGE * dim.step
    admitted = [size for size in range(dim.low, last + 1) if admits(dim, size)]
    return rules[:1] if splitting_size(rules, admitted) is None else rules


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
    rules = _told_apart(moving[0], number, axis)
    if len(rules) != 1:
        return Unknown(f"changes with {moving[0].name}, by no single rule found")
    expr = rules[0].expr(moving[0].name)
    return moving[0].conclusion() if expr == Symbol(moving[0].name) else as_dim(expr)


def _joint_dim(number: int, axis: int, moving: list[Group], seen: _Seen) -> Dim:
    names = " and ".join(group.name for group in moving)
    parts = dict[str, Expr]()
    for group in moving:
        rules = _told_apart(group, number, axis)
        if len(rules) == 1:
            parts[group.name] = rules[0].expr(group.name)
    found = seen.moved.get(frozenset(group.name for group in moving))
    if found is None or len(parts) < len(moving):
        return Unknown(f"changes with {names}, by no rule found")
    sizes, moved = found
    at_base = {group.name: group.base for group in moving}
    expr = jointly(parts, Moved(at_base, seen.base[number][1].sizes[axis]), Moved(sizes, moved[number][1].sizes[axis]))
    return Unknown(f"changes with {names}, by no rule found") if expr is None else as_dim(expr)


def _notes(groups: list[Group]) -> Iterator[str]:
    for group in groups:
        if len(group.accepted) > 1:
            refused = f", refused {listed(group.refused)}" if group.refused else ""
            yield f"{group.name} took {listed(list(group.accepted))}{refused}"


def larger_batch(contract: Contract, call: Call) -> Call | None:
    """The call with one more along axis 0 of every input; None where axis 0 is not free under one name."""
    ports = [port for port in contract.inputs if port.dims != ()]
    firsts = [Free("N") if port.dims is None else port.dims[0] for port in ports]
    specs = dict(call_leaves(call))
    sizes = {specs[port.path].sizes[0] for port in ports}
    if not firsts or len(sizes) != 1 or any(dim != firsts[0] for dim in firsts):
        return None
    size = sizes.pop() + 1
    if not isinstance(firsts[0], Free) or not admits(firsts[0], size):
        return None
    return resized(call, tuple((port.path, 0) for port in ports), size)
