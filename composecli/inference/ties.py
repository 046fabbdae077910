"""Find axes of several inputs whose sizes follow from each other by a rule.

A U-Net decoder accepts `f1: float32[N, 8, 64, 64]` and `f2: float32[N, 16, 32, 32]`, and no other
size of any of these axes alone. `f1` is twice as large as `f2`: `H` and `2*H`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from composecli.core.dims import Dim, as_dim, as_free, unknown_reason
from composecli.core.pytree import Axis, size_of
from composecli.core.size_expr import Const, Expr, add, multiply
from composecli.inference.axis_groups import AxisGroup, Example, Tie, make_group, try_size
from composecli.inference.prober import Probe
from composecli.inference.products import find_products
from composecli.inference.size_rules import Run, SizeRule, rule_of_runs

MAX_SUBSETS = 16
# More inputs of one model than this are not tied all at once.
MAX_TIED_AXES = 8
MIN_RATIO, MAX_RATIO = 2, 64


def tied_dim(size: int, ties: Sequence[tuple[AxisGroup, Tie]]) -> Dim:
    """Return the dim of an axis that has this size in the example and is tied to these groups.

    It is unknown if the dim of one of the groups is.
    """
    terms: list[Expr] = [Const(size)]
    factors = list[Expr]()
    constant = size
    for group, tie in ties:
        dim = group.dim()
        if unknown_reason(dim) is not None:
            return dim
        if as_free(dim) is None:
            continue
        part, part_size = tie.rule.expr(group.name), tie.rule.at(group.base)
        if tie.is_factor:
            factors.append(part)
            constant //= part_size
        else:
            terms += [part, Const(-part_size)]
    if factors:
        return as_dim(multiply(Const(constant), *factors))
    return as_dim(add(*terms))


def find_ties(
    example: Example, stuck: Sequence[Axis], loose: Sequence[Axis], probe: Probe
) -> Iterator[AxisGroup]:
    """Yield groups of axes whose sizes differ and change together.

    `stuck` are axes that accept no other size alone, and `loose` are those that do. A stuck axis
    may follow several others: a mask covers the cached and the new tokens, `P + T`.
    """
    tied = set[Axis]()
    products = list(find_products(example, stuck, loose, probe))
    for group in products:
        tied.update(group.all_axes)
    yield from products
    stuck = [axis for axis in stuck if axis not in tied]
    loose = [axis for axis in loose if axis not in tied]
    for group in _with_constant_differences(example, stuck, probe):
        if not tied.issuperset(group.axes):
            tied.update(group.all_axes)
            yield group
    stuck = [axis for axis in stuck if axis not in tied]
    yield from _with_loose_axes(example, stuck, loose, probe)


def _with_loose_axes(
    example: Example, stuck: Sequence[Axis], loose: Sequence[Axis], probe: Probe
) -> list[AxisGroup]:
    """Return the groups of stuck axes and those that change alone, too.

    Each loose axis is in one group: two lists of lengths may follow one batch of sequences.
    """
    groups = dict[Axis, AxisGroup]()
    for axis in stuck:
        found = _with_loose_axis(example, axis, loose, probe)
        if found is None:
            continue
        leader = found.axes[0]
        earlier = groups.get(leader)
        if earlier is None:
            groups[leader] = found
            continue
        axes = tuple(dict.fromkeys((*earlier.axes, *found.axes)))
        merged = make_group(example, axes, ties=(*earlier.ties, *found.ties))
        if _changes_together(example, merged, probe):
            groups[leader] = merged
    return list(groups.values())


def _changes_together(example: Example, group: AxisGroup, probe: Probe) -> bool:
    """Return whether axes that follow one another in pairs follow all at once.

    A size that rounds is the same until the next multiple.
    """
    far = group.base + max((tie.rule.divisor for tie in group.ties), default=1)
    return all(try_size(example.call, group, size, probe) for size in (group.base + 1, far))


def _with_loose_axis(
    example: Example, axis: Axis, loose: Sequence[Axis], probe: Probe
) -> AxisGroup | None:
    """Return the group of a stuck axis and one that changes alone, too; None if there is none."""
    group = _with_equal_axis(example, axis, loose, probe)
    if group is not None:
        return group
    for leader in _possible_leaders(example, axis, loose):
        group = _with_rounding(example, leader, axis, probe)
        if group is not None:
            return group
    return None


def _with_equal_axis(
    example: Example, axis: Axis, loose: Sequence[Axis], probe: Probe
) -> AxisGroup | None:
    """Return the group of a stuck axis and one of its size that it changes with; None if none is.

    There may be more sequences than lengths, but not more lengths than sequences.
    """
    size = size_of(example.call, axis)
    for other in loose:
        if other[0] == axis[0] or size_of(example.call, other) != size:
            continue
        group = make_group(example, (other, axis))
        if _holds(example, group, probe):
            return group
    return None


def _with_constant_differences(
    example: Example, stuck: Sequence[Axis], probe: Probe
) -> Iterator[AxisGroup]:
    """Yield groups in which a larger axis is a multiple of a smaller one plus a constant."""
    leaders = set[Axis]()
    for subset in _subsets(stuck):
        if len(leaders.intersection(subset)) > len(subset) - 2:
            continue
        for scaled in (True, False):
            group = _linear_group(example, subset, scaled=scaled)
            if group is not None and _holds(example, group, probe):
                leaders.update(group.axes)
                yield group
                break


def _subsets(stuck: Sequence[Axis]) -> list[tuple[Axis, ...]]:
    """Return the axes that may be tied: pairs of inputs first, then all of them at one position."""
    pairs = list[tuple[Axis, ...]]()
    wholes = list[tuple[Axis, ...]]()
    for number in sorted({number for _, number in stuck}):
        alike = tuple(axis for axis in stuck if axis[1] == number)
        pairs += combinations(alike, 2)
        if 2 < len(alike) <= MAX_TIED_AXES:
            wholes.append(alike)
    if 2 < len(stuck) <= MAX_TIED_AXES:
        wholes.append(tuple(stuck))
    return [*pairs[:MAX_SUBSETS], *dict.fromkeys(wholes)]


def _linear_group(example: Example, axes: tuple[Axis, ...], *, scaled: bool) -> AxisGroup | None:
    """Return the group of the smallest axes, with the others tied to them.

    The size of the others grows in proportion if `scaled`, and otherwise by as much. None if the
    sizes are all equal, or if `scaled` makes no difference.
    """
    sizes = {axis: size_of(example.call, axis) for axis in axes}
    base = min(sizes.values())
    ties = list[Tie]()
    for axis, size in sizes.items():
        scale = 1
        if scaled:
            scale = round(size / base)
        if size > base:
            rule = SizeRule(scale, 0, 1, size - scale * base)
            ties.append(Tie(axis, rule))
    if not ties or (scaled and all(tie.rule.scale == 1 for tie in ties)):
        return None
    leaders = tuple(axis for axis, size in sizes.items() if size == base)
    return make_group(example, leaders, ties=tuple(ties))


def _holds(example: Example, group: AxisGroup, probe: Probe) -> bool:
    """Return whether the model accepts the next sizes of the group, or twice its size."""
    near = [try_size(example.call, group, group.base + more, probe) for more in (1, 2)]
    if any(near):
        return all(near)
    return try_size(example.call, group, 2 * group.base, probe)


def _possible_leaders(example: Example, axis: Axis, loose: Sequence[Axis]) -> list[Axis]:
    """Return the axes at the same position of other inputs that are several times as large."""
    path, number = axis
    size = size_of(example.call, axis)
    leaders = list[Axis]()
    for other in loose:
        if other[0] == path or other[1] != number:
            continue
        ratio = size_of(example.call, other) / max(1, size)
        if MIN_RATIO - 1 < ratio <= MAX_RATIO:
            leaders.append(other)
    return leaders


def _with_rounding(
    example: Example, leader: Axis, follower: Axis, probe: Probe
) -> AxisGroup | None:
    """Return the group of the leader, with the follower tied to its size divided and rounded.

    Pooling by 4 makes 16 of 64 to 67. If the follower has size 16, the leader alone accepts those
    sizes: there are 4 of them, and the follower is `L//4`.
    """
    alone = make_group(example, (leader,))
    ratio = round(alone.base / size_of(example.call, follower))
    last = _last_accepted(example, alone, ratio, probe)
    first = _last_accepted(example, alone, -ratio, probe)
    if first is None or last is None:
        return None
    run = Run(first, last - first + 1)
    if run.length < MIN_RATIO:
        return None
    rule = rule_of_runs(run, 1, size_of(example.call, follower))
    group = make_group(example, (leader,), ties=(Tie(follower, rule),))
    if all(try_size(example.call, group, size, probe) for size in run.outside):
        return group
    return None


def _last_accepted(example: Example, group: AxisGroup, distance: int, probe: Probe) -> int | None:
    """Return the last accepted size within this distance of the base; None if all are.

    The distance is negative for sizes below the base.
    """
    accepted, refused = group.base, group.base + distance
    if refused < 1 or try_size(example.call, group, refused, probe):
        return None
    while abs(refused - accepted) > 1:
        middle = (accepted + refused) // 2
        if try_size(example.call, group, middle, probe):
            accepted = middle
        else:
            refused = middle
    return accepted
