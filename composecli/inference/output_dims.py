"""Derive the output dims: how the sizes of a result depend on the sizes of the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from composecli.core.contract import Port, output_name
from composecli.core.dims import Dim, Fixed, Unknown, as_dim, as_expr, sizes_between
from composecli.core.observations import Accepted
from composecli.core.pytree import Call, TensorSpec, leaves
from composecli.core.size_expr import Symbol, evaluate, symbols
from composecli.inference.axis_groups import (
    AxisGroup,
    Leaves,
    same_structure,
    try_size,
    with_sizes,
)
from composecli.inference.prober import Probe
from composecli.inference.size_rules import (
    JointSample,
    SizeRule,
    candidates,
    combine,
    splitting_size,
)

MAX_SPLITS = 12
# Rules are told apart at sizes up to this many steps, or this many times the base, from the base.
MAX_STEPS_FROM_BASE = 70
MAX_BASE_RATIO = 4
MAX_COMPARISONS = 200_000

Sizes = Mapping[str, int]


class JointResult(NamedTuple):
    """The result of one forward with several groups resized at once."""

    sizes: Sizes
    result: Leaves


@dataclass(frozen=True, slots=True)
class Results:
    """The result of the base call, and of calls with several groups resized, by their names.

    `unstable` is how the structure of the result changes with the input, empty if every accepted
    call returned the same one. `other_values` are
    results of the base call with other values.
    """

    base: Leaves
    unstable: str
    joint: Mapping[frozenset[str], JointResult]
    other_values: tuple[Leaves, ...] = ()

    def sizes_by_values(self, number: int, axis: int) -> list[int]:
        """Return the sizes of an axis that inputs of the same sizes led to, in order."""
        results = (self.base, *self.other_values)
        return sorted({found[number][1].sizes[axis] for found in results})

    @property
    def keeps_structure(self) -> bool:
        """Whether inputs of the same sizes and other values led to the same structure."""
        return all(same_structure(self.base, found) for found in self.other_values)


def disambiguate(call: Call, group: AxisGroup, probe: Probe) -> None:
    """Probe the sizes that distinguish the rules which still fit an output axis.

    An output of 32 at H = 64 and of 33 at H = 65 fits `ceil(H/2)` and `H//2 + H%2` and many more
    rules with other divisors; each probe is at the size at which the fewest of them agree. It ends
    early if the model refuses a size, which means that its range is another one.
    """
    for _ in range(MAX_SPLITS):
        size = _next_splitting_size(group)
        if size is None or not try_size(call, group, size, probe):
            return


def _next_splitting_size(group: AxisGroup) -> int | None:
    """Return the size to probe next; None if no size distinguishes the rules of any axis."""
    ambiguous = [rules for rules in _rules_by_axis(group) if len(rules) > 1]
    most_rules = max(map(len, ambiguous), default=0)
    untried = list[int]()
    for size in _distinguishing_sizes(group, most_rules):
        if size not in group.accepted and size not in group.rejected:
            untried.append(size)
    for rules in ambiguous:
        best = splitting_size(rules, untried)
        if best is not None:
            return best
    return None


def _rules_by_axis(group: AxisGroup) -> Iterator[tuple[SizeRule, ...]]:
    """Yield the rules that fit each output axis; none if the structure of the result changes."""
    base = group.accepted[group.base]
    results = group.accepted.values()
    if not all(same_structure(base, result) for result in results):
        return
    for number, axis in _output_axes(base):
        outputs = group.output_sizes(number, axis)
        yield candidates(outputs)


def _output_axes(base: Leaves) -> Iterator[tuple[int, int]]:
    """Yield the number of each output tensor with each of its axes."""
    for number, (_, spec) in enumerate(base):
        for axis in range(len(spec.sizes)):
            yield number, axis


def _distinguishing_sizes(group: AxisGroup, rule_count: int) -> list[int]:
    """Return admitted sizes around the base at which rules may be distinguished.

    If there are so many rules that comparing all sizes takes too long, sizes far from the base
    are sampled.
    """
    base, step = group.base, group.step
    reach = max(MAX_STEPS_FROM_BASE * step, MAX_BASE_RATIO * base)
    dim = group.free_dim() or replace(group.pattern, low=base)
    multiples = sizes_between(dim, base - reach, base + reach)
    sizes = [size for size in multiples if group.allows(size)]
    comparisons = rule_count * len(sizes)
    stride = 1 + comparisons // MAX_COMPARISONS
    if stride == 1:
        return sizes
    near = [size for size in sizes if abs(size - base) <= MAX_STEPS_FROM_BASE]
    sampled = sizes[::stride]
    return sorted({*near, *sampled})


def probe_jointly(
    call: Call, groups: list[AxisGroup], base: Leaves, probe: Probe
) -> dict[frozenset[str], JointResult]:
    """Run a forward for each set of groups that an output axis depends on, all resized."""
    joint = dict[frozenset[str], JointResult]()
    for number, axis in _output_axes(base):
        moving = _moving_groups(number, axis, groups)
        names = frozenset(group.name for group in moving)
        if len(moving) < 2 or names in joint:
            continue
        chosen = [(group, _nearest_moving_size(group, number, axis)) for group in moving]
        changed_call = with_sizes(call, chosen)
        observation = probe(changed_call)
        if not isinstance(observation, Accepted):
            continue
        result = tuple(leaves(observation.result))
        if same_structure(base, result):
            sizes = {group.name: size for group, size in chosen}
            joint[names] = JointResult(sizes, result)
    return joint


def _moving_groups(number: int, axis: int, groups: list[AxisGroup]) -> list[AxisGroup]:
    """Return the groups that an output axis changes with."""
    moving = list[AxisGroup]()
    for group in groups:
        outputs = group.output_sizes(number, axis)
        distinct = set(outputs.values())
        if len(distinct) > 1:
            moving.append(group)
    return moving


def _nearest_moving_size(group: AxisGroup, number: int, axis: int) -> int:
    """Return the size closest to the base at which this output axis has another size."""
    outputs = group.output_sizes(number, axis)
    base_output = outputs[group.base]
    moving = [size for size, output in outputs.items() if output != base_output]
    return min(moving, key=lambda size: abs(size - group.base))


def to_output_port(number: int, results: Results, groups: list[AxisGroup]) -> Port:
    """Return the output port of this number, with its dims expressed in terms of the groups."""
    path, spec = results.base[number]
    dims = list[Dim]()
    for axis, size in enumerate(spec.sizes):
        dim = _by_values(number, axis, results)
        if dim is None and not results.unstable:
            dim = _output_dim(number, axis, size, groups, results)
        dims.append(dim or Unknown(results.unstable))
    name = output_name(path)
    return Port(name, path, spec.dtype, tuple(dims))


def changed_structure(base: Leaves, groups: list[AxisGroup]) -> str:
    """Return how the structure of the result changes with the groups; empty if it does not.

    A model that returns a tensor for each step returns 8 of them for 8 steps, and 9 for 9.
    """
    for group in groups:
        sizes = [size for size, found in group.accepted.items() if not same_structure(base, found)]
        if not sizes:
            continue
        nearest = min(sizes, key=lambda size: abs(size - group.base))
        counts = (len(base), len(group.accepted[nearest]))
        if counts[0] == counts[1]:
            return f"the dtype or rank of the result changes with {group.name}"
        name = group.name
        return (
            f"the number of outputs changes with {name}: "
            f"{counts[0]} at {name} = {group.base}, {counts[1]} at {name} = {nearest}"
        )
    return ""


def _by_values(number: int, axis: int, results: Results) -> Dim | None:
    """Return the dim of an axis that follows the values of the input; None if it does not."""
    if not results.keeps_structure:
        reason = "the structure of the result follows the values of the input"
        return Unknown(reason, follows_values=True)
    sizes = results.sizes_by_values(number, axis)
    if len(sizes) == 1:
        return None
    found = ", ".join(map(str, sizes))
    reason = f"follows the values of the input: {found} for inputs of the same sizes"
    return Unknown(reason, follows_values=True)


def _output_dim(
    number: int, axis: int, size: int, groups: list[AxisGroup], results: Results
) -> Dim:
    """Return the dim of one axis, which has this size in the base result."""
    moving = _moving_groups(number, axis, groups)
    if not moving:
        return _constant_dim(size, groups)
    unsettled = [group.name for group in moving if group.free_dim() is None]
    if unsettled:
        names = ", ".join(unsettled)
        return Unknown(f"changes with {names}")
    if len(moving) > 1:
        return _joint_dim(number, axis, moving, results)
    group = moving[0]
    rules = _settled_rules(group, number, axis)
    if not rules:
        return Unknown(f"changes with {group.name}, by no single rule found")
    expr = rules[0].expr(group.name)
    if expr == Symbol(group.name):
        return group.dim()
    return as_dim(expr)


def _constant_dim(size: int, groups: list[AxisGroup]) -> Dim:
    """Return a fixed dim, unless a group could not be resized for want of memory."""
    unmoved = list[str]()
    for group in groups:
        if group.out_of_memory and len(group.accepted) == 1:
            unmoved.append(group.name)
    if not unmoved:
        return Fixed(size)
    names = ", ".join(unmoved)
    return Unknown(f"no other size of {names} could be observed")


def _settled_rules(group: AxisGroup, number: int, axis: int) -> tuple[SizeRule, ...]:
    """Return the rule of an output axis; none if several rules are left.

    Rules that agree on every admitted size are one rule in several forms: return the simplest,
    and the one that divides by the step (if N%8==0, then N and 8*(N//8) are equal).
    """
    outputs = group.output_sizes(number, axis)
    rules = candidates(outputs)
    if len(rules) < 2:
        return rules
    if group.free_dim() is None:
        return ()
    sizes = _distinguishing_sizes(group, len(rules))
    if splitting_size(rules, sizes) is not None:
        return ()
    simplest = rules[0]
    unshifted = [rule for rule in rules if rule.shift == 0]
    stepped = [rule for rule in unshifted if rule.divisor == group.step]
    if not stepped or stepped[0] == simplest:
        return (simplest,)
    return simplest, stepped[0]


def _joint_dim(number: int, axis: int, moving: list[AxisGroup], results: Results) -> Dim:
    """Return the dim of an output axis that depends on several groups."""
    names = tuple(group.name for group in moving)
    joined_names = " and ".join(names)
    unknown = Unknown(f"changes with {joined_names}, by no rule found")
    joint = results.joint.get(frozenset(names))
    if joint is None:
        return unknown
    base_sizes = {group.name: group.base for group in moving}
    _, base_spec = results.base[number]
    base = JointSample(base_sizes, base_spec.sizes[axis])
    _, moved_spec = joint.result[number]
    moved = JointSample(joint.sizes, moved_spec.sizes[axis])
    rules_by_group = [_settled_rules(group, number, axis) for group in moving]
    for rules in product(*rules_by_group):
        rule_by_name = zip(names, rules, strict=True)
        parts = {name: rule.expr(name) for name, rule in rule_by_name}
        expr = combine(parts, base, moved)
        if expr is not None:
            return as_dim(expr)
    return unknown


def invalidate(ports: tuple[Port, ...], result: Leaves, sizes: Sizes) -> tuple[Port, ...]:
    """Return the output ports; dims that predict another size than this result become unknown."""
    predicted = [(port.path, _placeholder(port)) for port in ports]
    if not same_structure(tuple(predicted), result):
        unknown = Unknown(f"the result has a different structure at {format_sizes(sizes)}")
        withdrawn = list[Port]()
        for port in ports:
            rank = len(port.dims or ())
            withdrawn.append(replace(port, dims=(unknown,) * rank))
        return tuple(withdrawn)
    checked = list[Port]()
    for port, (_, spec) in zip(ports, result, strict=True):
        pairs = zip(port.dims or (), spec.sizes, strict=True)
        dims = [_check_dim(dim, size, sizes) for dim, size in pairs]
        checked.append(replace(port, dims=tuple(dims)))
    return tuple(checked)


def _placeholder(port: Port) -> TensorSpec:
    """Return a tensor of the port's dtype and rank."""
    rank = len(port.dims or ())
    return TensorSpec(port.dtype, (0,) * rank)


def _check_dim(dim: Dim, size: int, sizes: Sizes) -> Dim:
    """Return the dim, or why it is unknown if it predicts another size."""
    expr = as_expr(dim)
    if expr is None:
        return dim
    knows_all_sizes = symbols(expr) <= sizes.keys()
    if not knows_all_sizes or evaluate(expr, sizes) == size:
        return dim
    return Unknown(f"{dim} by the first observations, but {size} at {format_sizes(sizes)}")


def format_sizes(sizes: Sizes) -> str:
    """Return sizes by name as text: `H = 67 with W = 67`."""
    parts = [f"{name} = {size}" for name, size in sizes.items()]
    return " with ".join(parts)
