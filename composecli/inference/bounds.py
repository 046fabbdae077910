"""Find the step and both ends of the sizes that a group of axes accepts.

They are found among the sizes that are a number of steps from the base: the grid. Sizes with other
remainders are the subject of `composecli.inference.residues`.
"""

from __future__ import annotations

from composecli.core.dims import example_size, sizes_outside
from composecli.core.pytree import Call, call_leaves
from composecli.inference.axis_groups import AxisGroup, Example, try_size, with_size
from composecli.inference.divisors import prime_divisors
from composecli.inference.grouping import STRIDE
from composecli.inference.prober import Probe
from composecli.inference.residues import find_residues, find_runs, has_holes, is_single_run
from composecli.inference.squares import REASON, takes_squares

# A size that is tried above the base, to see whether the sizes end.
FAR_SIZE = 128
MAX_LIMITS = 6
# No table has a row for each pixel of an image, so limits apply up to this rank.
MAX_TABLE_RANK = 3
# Multiplications, estimated by `Example.cost`.
MAX_COST_OF_FAR_SIZE = 5e9
MAX_COST_OF_LIMIT = 3e11
# Pairs of tokens, of which attention has a number each: beyond this length they may be too many.
USUAL_LENGTH = 8192
MAX_PAIRS = 1e9
MIN_ACCEPTED = 3
MAX_STATED_SIZES = 3


def find_bounds(
    example: Example, group: AxisGroup, probe: Probe, similar: AxisGroup | None = None
) -> None:
    """Probe sizes until the step and both ends of the group's range are known.

    `similar` is an explored group whose ends are likely to be the same: height for width.

    Axis 2 of `float32[2, 3, 64, 64]`, for a model that requires a multiple of 16 up to 224:

        step    65 and 63 are rejected, 128 is accepted, so the step divides 64; 96 and 80 are
                accepted, 72 is rejected: 16
        low     16 and 32 are accepted: the range starts at 16
        high    256 is rejected; bisection accepts 192 and 224 and rejects 240: the range ends
                at 224
        others  63 and 65 are rejected, so a remainder of 0 is the only one. A model that rounds
                up accepts 63 too, and 31 and 15: `H%16 in {0, 15}`
    """
    if group.stated is not None:
        for size in _stated_sizes(group):
            try_size(example.call, group, size, probe)
        # Sizes near the base may have one output size in common: with stride 16, 7 to 16 have.
        far = _far_size(example, group)
        if not group.is_batch and far > group.base and group.allows(far):
            try_size(example.call, group, far, probe)
        return
    changes_size = len(group.accepted) > 1
    if not changes_size:
        return
    if takes_squares(example.call, group, probe):
        group.mark_unknown(REASON)
        return
    _find_step(example.call, group, probe)
    if similar is not None and similar.step == group.step:
        for size in _ends(similar):
            try_size(example.call, group, size, probe)
    find_ends(example, group, probe)
    find_residues(example.call, group, probe)


def explain_holes(example: Example, group: AxisGroup, probe: Probe) -> bool:
    """Look for the pattern of a group that refuses sizes between those that it accepts.

    Return whether one was found. A few sizes, such as 63 and 64, may be one run of several.
    """
    if group.step > 1 or group.stated is not None:
        return False
    is_range = group.free_dim() is not None and not is_single_run(group)
    if is_range or not has_holes(group):
        return False
    if find_runs(example.call, group, probe):
        find_ends(example, group, probe)
        find_residues(example.call, group, probe)
    return group.free_dim() is not None


def find_ends(example: Example, group: AxisGroup, probe: Probe) -> None:
    """Probe sizes on the grid until both ends of the range are known."""
    _find_low(example.call, group, probe)
    _find_high(example, group, probe)
    _accept_enough(example.call, group, probe)


def _stated_sizes(group: AxisGroup) -> list[int]:
    """Return up to three sizes with which to confirm a stated dim."""
    base, step = group.base, group.step
    double = example_size(group.pattern, 2 * base)
    sizes = [base + step, double, base - step]
    sizes += [base + 2 * step, base + 3 * step]
    allowed = list[int]()
    for size in dict.fromkeys(sizes):
        if size >= 1 and group.allows(size):
            allowed.append(size)
    return allowed[:MAX_STATED_SIZES]


def _ends(group: AxisGroup) -> list[int]:
    """Return both ends of a group's range and the sizes just outside it."""
    dim = group.free_dim()
    if dim is None:
        return []
    outside = sizes_outside(dim)
    if dim.high is None:
        return [dim.low, *outside]
    return [dim.low, dim.high, *outside]


def _find_step(call: Call, group: AxisGroup, probe: Probe) -> None:
    """Find the distance between accepted sizes.

    It is 1 if a neighbour of the base is accepted, and otherwise the smallest divisor of a known
    distance.
    """
    base = group.base
    if try_size(call, group, base + 1, probe):
        return
    accepts_below = base > 2 and try_size(call, group, base - 1, probe)
    larger = [size - base for size in group.accepted if size > base]
    smaller = [base - size for size in group.accepted if 1 < size < base]
    if larger:
        step = _divide_distance(call, group, min(larger), 1, probe)
    elif smaller and not accepts_below:
        step = _divide_distance(call, group, min(smaller), -1, probe)
    else:
        return
    group.assign_step(step)
    # Try another size that is not a multiple: one rejected size is not enough to conclude a step.
    try_size(call, group, base + step + 1, probe)


def _divide_distance(call: Call, group: AxisGroup, distance: int, sign: int, probe: Probe) -> int:
    """Return the smallest divisor of `distance` accepted above (1) or below (-1) the base."""
    step = distance
    for prime in prime_divisors(distance):
        while step % prime == 0:
            shorter = step // prime
            if shorter == 1:
                break
            size = group.base + sign * shorter
            if not try_size(call, group, size, probe):
                break
            step = shorter
    return step


def _find_low(call: Call, group: AxisGroup, probe: Probe) -> None:
    """Find the smallest accepted size, by bisection between it and a rejected one."""
    step = group.step
    first = group.grid_size_from(1)
    for size in (first, first + step):
        try_size(call, group, size, probe)
    skips_two = 1 in group.accepted and 2 in group.rejected
    if group.base != 1 and skips_two:
        group.reject_broadcast_one()
    rejected = [size for size in group.rejected if group.is_on_grid(size) and size < group.base]
    largest_rejected = max(rejected, default=first - step)
    accepted = [size for size in group.accepted if group.is_on_grid(size)]
    smallest_accepted = min(size for size in accepted if size > largest_rejected)
    _bisect(call, group, largest_rejected, smallest_accepted, probe)


def _find_high(example: Example, group: AxisGroup, probe: Probe) -> None:
    """Find the largest accepted size, if a larger one is rejected."""
    if _lowest_rejected_above(group) is None:
        _try_larger_sizes(example, group, probe)
    _try_limits(example, group, probe)
    rejected = _lowest_rejected_above(group)
    if rejected is not None:
        accepted = [size for size in group.accepted if group.is_on_grid(size)]
        smaller = [size for size in accepted if size < rejected]
        _bisect(example.call, group, rejected, max(smaller), probe)


def _lowest_rejected_above(group: AxisGroup) -> int | None:
    """Return the smallest size on the grid above the base that is rejected; None if none is."""
    rejected = [size for size in group.rejected if group.is_on_grid(size)]
    larger = [size for size in rejected if size > group.base]
    return min(larger, default=None)


def _try_larger_sizes(example: Example, group: AxisGroup, probe: Probe) -> None:
    """Look for a rejected size: just above each limit, then far above the base."""
    if group.is_batch:
        size = group.base + 3 * group.step
        try_size(example.call, group, size, probe)
        return
    for limit in _limits(example, group):
        size = group.grid_size_from(limit + 1)
        if size <= max(group.accepted):
            continue
        if not _is_affordable_limit(example, group, size):
            continue
        if try_size(example.call, group, size, probe):
            break
    size = _far_size(example, group)
    if size > max(group.accepted):
        try_size(example.call, group, size, probe)


def _try_limits(example: Example, group: AxisGroup, probe: Probe) -> None:
    """Try the largest limit below the lowest rejected size, as long as that is rejected too.

    A model with 512 positions may accept 512 tokens, or two fewer if it adds special tokens.
    """
    rejected = _lowest_rejected_above(group)
    while rejected is not None:
        limits = list[int]()
        for limit in _limits(example, group):
            size = group.grid_size_up_to(limit)
            if max(group.accepted) < size < rejected:
                limits.append(size)
        if not limits:
            return
        largest = max(limits)
        for steps_below in range(3):
            size = largest - steps_below * group.step
            if size > max(group.accepted):
                try_size(example.call, group, size, probe)
        lowered = _lowest_rejected_above(group)
        if lowered == rejected:
            return
        rejected = lowered


def _limits(example: Example, group: AxisGroup) -> list[int]:
    """Return the limits that may apply to this group, the largest first."""
    path, _ = group.axes[0]
    specs = dict(call_leaves(example.call))
    rank = len(specs[path].sizes)
    if rank > MAX_TABLE_RANK:
        return []
    largest_first = sorted(example.limits, reverse=True)
    return largest_first[:MAX_LIMITS]


def _far_size(example: Example, group: AxisGroup) -> int:
    """Return a size far above the base at which a forward is still cheap."""
    if group.base <= 2 * STRIDE:
        size = max(FAR_SIZE, 4 * group.base)
    else:
        size = max(FAR_SIZE, 2 * group.base)
    while size > 2 * group.base:
        if _is_affordable(example, group, size, MAX_COST_OF_FAR_SIZE):
            break
        size //= 2
    return group.grid_size_up_to(size)


def _is_affordable_limit(example: Example, group: AxisGroup, size: int) -> bool:
    """Return whether a forward at a size just above a limit may be run."""
    pairs = with_size(example.call, group, size).elements * size
    if size > USUAL_LENGTH and pairs > MAX_PAIRS:
        return False
    return _is_affordable(example, group, size, MAX_COST_OF_LIMIT)


def _is_affordable(example: Example, group: AxisGroup, size: int, max_cost: float) -> bool:
    """Return whether a forward at this size costs at most `max_cost` multiplications."""
    call = with_size(example.call, group, size)
    cost = call.elements * example.cost
    return cost <= max_cost


def _bisect(call: Call, group: AxisGroup, rejected: int, accepted: int, probe: Probe) -> None:
    """Narrow the gap between a rejected and an accepted size to one step."""
    step = group.step
    while abs(accepted - rejected) > step:
        middle = group.grid_size_up_to((accepted + rejected) // 2)
        if middle in (accepted, rejected):
            middle += step
        if middle in (accepted, rejected):
            return
        try_size(call, group, middle, probe)
        if middle in group.accepted:
            accepted = middle
        elif middle in group.rejected:
            rejected = middle
        else:
            return


def _accept_enough(call: Call, group: AxisGroup, probe: Probe) -> None:
    """Try the next sizes above the base until enough are accepted to conclude a range."""
    for factor in (1, 2, 3):
        if len(group.accepted) < MIN_ACCEPTED:
            size = group.base + factor * group.step
            try_size(call, group, size, probe)
