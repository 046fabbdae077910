"""Outputs: how the sizes of what a model returns follow from the sizes of what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

from composecli.core.contract import Port, output_name
from composecli.core.dims import Dim, Fixed, Free, Shape, Unknown, as_dim, as_expr
from composecli.core.observations import Accepted
from composecli.core.pytree import Call, TensorSpec, leaves
from composecli.core.size_expr import Symbol, evaluate, symbols
from composecli.inference.axis_groups import (
    AxisGroup,
    Leaves,
    allowed,
    column,
    same_structure,
    try_size,
    with_sizes,
)
from composecli.inference.prober import Run
from composecli.inference.size_rules import (
    JointSample,
    SizeRule,
    candidates,
    combine,
    splitting_size,
)

MOST_SPLITS = 12
SPLIT_RANGE = 70
REACH = 4
MOST_COMPARISONS = 200_000


def disambiguate(call: Call, group: AxisGroup, run: Run) -> None:
    """Probe the sizes that tell the expressions apart which still fit an output axis."""
    for _ in range(MOST_SPLITS):
        open_fits = [rules for rules in _fits(group) if len(rules) > 1]
        tried = group.accepted.keys() | group.refused
        sizes = [
            size
            for size in _telling(group, max(map(len, open_fits), default=0))
            if size not in tried
        ]
        size = next(filter(None, (splitting_size(rules, sizes) for rules in open_fits)), None)
        if size is None:
            return
        try_size(call, group, size, run)


def _telling(group: AxisGroup, rules: int) -> list[int]:
    """Sizes at which rules may be told apart: those that are admitted, up to a few times the base; not all of them
    where there are very many rules to hold against each."""
    reach = max(SPLIT_RANGE * group.step, REACH * group.base)
    dim = group.dim()
    low, high = (dim.low, dim.high) if isinstance(dim, Free) else (group.base, None)
    last = min(high or group.base + reach, group.base + reach)
    first = max(low, group.base - reach)
    sizes = [
        size
        for size in range(first + -first % group.step, last + 1, group.step)
        if allowed(group, size)
    ]
    near = [size for size in sizes if abs(size - group.base) <= SPLIT_RANGE]
    stride = 1 + rules * len(sizes) // MOST_COMPARISONS
    return sorted({*near, *sizes[::stride]} if stride > 1 else sizes)


def _fits(group: AxisGroup) -> Iterator[tuple[SizeRule, ...]]:
    base = group.accepted[group.base]
    if not all(same_structure(base, found) for found in group.accepted.values()):
        return
    for number, (_, spec) in enumerate(base):
        for axis in range(len(spec.sizes)):
            yield candidates(column(group, number, axis))


@dataclass(frozen=True, slots=True)
class Seen:
    """What the base call returned, and what calls with several symbols moved at once did, with their sizes.

    `stable`: every call that was accepted returned the same structure.
    """

    base: Leaves
    stable: bool
    moved: Mapping[frozenset[str], tuple[Mapping[str, int], Leaves]]


def move_together(
    call: Call, groups: list[AxisGroup], base: Leaves, run: Run
) -> dict[frozenset[str], tuple[Mapping[str, int], Leaves]]:
    """One forward for each set of symbols that some output axis changes with, all of them at another size."""
    found = dict[frozenset[str], tuple[Mapping[str, int], Leaves]]()
    for number, (_, spec) in enumerate(base):
        for axis in range(len(spec.sizes)):
            moving = _moving(number, axis, groups)
            names = frozenset(group.name for group in moving)
            if len(moving) < 2 or names in found:
                continue
            sizes = {group.name: _nearest_that_moves(group, number, axis) for group in moving}
            seen = run(with_sizes(call, ((group, sizes[group.name]) for group in moving)))
            if isinstance(seen, Accepted) and same_structure(base, tuple(leaves(seen.result))):
                found[names] = (sizes, tuple(leaves(seen.result)))
    return found


def _nearest_that_moves(group: AxisGroup, number: int, axis: int) -> int:
    """The size closest to the base that gives this output axis another size."""
    seen = column(group, number, axis)
    moved = [size for size, value in seen.items() if value != seen[group.base]]
    return min(moved, key=lambda size: abs(size - group.base))


def output_port(number: int, seen: Seen, groups: list[AxisGroup]) -> Port:
    path, spec = seen.base[number]
    if not seen.stable:
        dims: Shape = tuple(
            Unknown("the structure of the result changes with the input") for _ in spec.sizes
        )
    else:
        dims = tuple(
            _output_dim(number, axis, size, groups, seen) for axis, size in enumerate(spec.sizes)
        )
    return Port(output_name(path), path, spec.dtype, dims)


def _rules(group: AxisGroup, number: int, axis: int) -> tuple[SizeRule, ...]:
    """The rule of an output axis, none where several are left. Those that agree on every size that is admitted are
    one: the plainest, and the one that divides by the step (where N%8==0, N and 8*(N//8) are the same)."""
    rules = candidates(column(group, number, axis))
    if len(rules) > 1:
        if (
            not isinstance(group.dim(), Free)
            or splitting_size(rules, _telling(group, len(rules))) is not None
        ):
            return ()
        stepped = (rule for rule in rules if rule.divisor == group.step and rule.shift == 0)
        return tuple(dict.fromkeys((rules[0], next(stepped, rules[0]))))
    return rules


def _moving(number: int, axis: int, groups: list[AxisGroup]) -> list[AxisGroup]:
    return [group for group in groups if len(set(column(group, number, axis).values())) > 1]


def _output_dim(number: int, axis: int, size: int, groups: list[AxisGroup], seen: Seen) -> Dim:
    moving = _moving(number, axis, groups)
    if not moving:
        unmoved = [group.name for group in groups if group.no_memory and len(group.accepted) == 1]
        return (
            Unknown(f"no other size of {', '.join(unmoved)} could be seen")
            if unmoved
            else Fixed(size)
        )
    unsettled = [group.name for group in moving if not isinstance(group.dim(), Free)]
    if unsettled:
        return Unknown(f"changes with {', '.join(unsettled)}")
    if len(moving) > 1:
        return _joint_dim(number, axis, moving, seen)
    rules = _rules(moving[0], number, axis)
    if not rules:
        return Unknown(f"changes with {moving[0].name}, by no single rule found")
    expr = rules[0].expr(moving[0].name)
    return moving[0].dim() if expr == Symbol(moving[0].name) else as_dim(expr)


def _joint_dim(number: int, axis: int, moving: list[AxisGroup], seen: Seen) -> Dim:
    names = tuple(group.name for group in moving)
    unknown = Unknown(f"changes with {' and '.join(names)}, by no rule found")
    if frozenset(names) not in seen.moved:
        return unknown
    sizes, moved = seen.moved[frozenset(names)]
    base = JointSample(
        {group.name: group.base for group in moving}, seen.base[number][1].sizes[axis]
    )
    for rules in product(*(_rules(group, number, axis) for group in moving)):
        parts = {name: rule.expr(name) for name, rule in zip(names, rules, strict=True)}
        expr = combine(parts, base, JointSample(sizes, moved[number][1].sizes[axis]))
        if expr is not None:
            return as_dim(expr)
    return unknown


def invalidate(ports: tuple[Port, ...], seen: Leaves, sizes: Mapping[str, int]) -> tuple[Port, ...]:
    """The output ports, with each dim that is another at these sizes made unknown."""
    if not same_structure(tuple((port.path, _like(port)) for port in ports), seen):
        reason = f"the result has another structure at {at(sizes)}"
        return tuple(
            replace(port, dims=tuple(Unknown(reason) for _ in port.dims or ())) for port in ports
        )
    found = list[Port]()
    for port, (_, spec) in zip(ports, seen, strict=True):
        dims = tuple(
            _held(dim, size, sizes) for dim, size in zip(port.dims or (), spec.sizes, strict=True)
        )
        found.append(replace(port, dims=dims))
    return tuple(found)


def _like(port: Port) -> TensorSpec:
    return TensorSpec(port.dtype, (0,) * len(port.dims or ()))


def _held(dim: Dim, size: int, sizes: Mapping[str, int]) -> Dim:
    expr = as_expr(dim)
    if expr is None or not symbols(expr) <= sizes.keys() or evaluate(expr, sizes) == size:
        return dim
    return Unknown(f"by what was seen first {dim}, and {size} at {at(sizes)}")


def at(sizes: Mapping[str, int]) -> str:
    return " with ".join(f"{name} = {size}" for name, size in sizes.items())
