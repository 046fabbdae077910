"""Variation: the step and both ends of the sizes that a group of axes takes."""

from __future__ import annotations

from composecli.core.dims import Free
from composecli.core.pytree import Call, call_leaves, resized
from composecli.inference.axis_groups import STRIDE, AxisGroup, Example, allowed, try_size
from composecli.inference.prober import Run

LARGE = 128
MOST_LIMITS = 6
TABLED_RANK = 3
# Multiplications, by the estimate of `Start.cost`.
MOST_FOR_A_LOOK = 5e9
MOST_FOR_A_LIMIT = 3e11


def find_bounds(start: Example, group: AxisGroup, run: Run, like: AxisGroup | None = None) -> None:
    """Find the step and both ends of the sizes that are taken. `like` is a group that went before, whose ends are
    likely to be the same."""
    call = start.call
    if group.stated is not None:
        for size in _stated_sizes(group):
            try_size(call, group, size, run)
        return
    if len(group.accepted) == 1:
        return
    _find_step(call, group, run)
    if group.base % group.step:
        return
    if like is not None and like.step == group.step:
        for size in _ends(like):
            try_size(call, group, size, run)
    _find_low(call, group, run)
    _find_high(start, group, run)
    for factor in (1, 2, 3):
        if len(group.accepted) < 3:
            try_size(call, group, group.base + factor * group.step, run)


def _ends(group: AxisGroup) -> list[int]:
    """The ends of a group and the sizes beyond them."""
    found = group.dim()
    if not isinstance(found, Free):
        return []
    high = [found.high, found.high + found.step] if found.high is not None else []
    return [size for size in (found.low, found.low - found.step, *high) if size > 0]


def _stated_sizes(group: AxisGroup) -> list[int]:
    base, step = group.base, group.step
    wanted = [
        base + step,
        2 * base - 2 * base % step,
        base - step,
        base + 2 * step,
        base + 3 * step,
    ]
    return [size for size in dict.fromkeys(wanted) if size >= 1 and allowed(group, size)][:3]


def _find_step(call: Call, group: AxisGroup, run: Run) -> None:
    """The distance between sizes that are taken: 1 where a neighbour is, else what the nearest divides to."""
    base = group.base
    if try_size(call, group, base + 1, run):
        return
    beside = base > 2 and try_size(call, group, base - 1, run)
    larger = [size - base for size in group.accepted if size > base]
    smaller = [base - size for size in group.accepted if 1 < size < base]
    if not larger and (beside or not smaller):
        return
    step, down = min(larger or smaller), not larger
    for prime in _primes(step):
        while step % prime == 0:
            less = step // prime
            if less == 1 or not try_size(call, group, base - less if down else base + less, run):
                break
            step = less
    group.step = step
    # One more that is no multiple: a single size that is refused makes no step.
    try_size(call, group, base + step + 1, run)


def _primes(number: int) -> list[int]:
    """The primes that divide a number."""
    return [
        n
        for n in range(2, number + 1)
        if number % n == 0 and all(n % other for other in range(2, n))
    ]


def _find_low(call: Call, group: AxisGroup, run: Run) -> None:
    """Narrow down the smallest size that is taken, by halving between it and one that is refused."""
    step = group.step
    for small in (step, 2 * step):
        try_size(call, group, small, run)
    if group.base != 1 and 1 in group.accepted and 2 in group.refused:
        # A size of 1 is broadcast where others are not taken: it says nothing of the smallest one.
        del group.accepted[1]
        group.refused.add(1)
    below = max(
        (size for size in group.refused if size < group.base and size % step == 0), default=0
    )
    above = [size for size in group.accepted if size > below]
    _halve(call, group, below, min(above), run)


def _find_high(start: Example, group: AxisGroup, run: Run) -> None:
    """The largest size that is taken, where one is refused: beyond what the model holds tables for, and far away."""
    step, call = group.step, start.call
    refused = [size for size in group.refused if size > group.base and size % step == 0]
    if not refused and group.axes[0][1] == 0:
        try_size(call, group, group.base + 3 * step, run)
    elif not refused:
        for limit in _limits(start, group):
            size = limit + 1 + -(limit + 1) % step
            if (
                size > max(group.accepted)
                and _affordable(start, group, size, MOST_FOR_A_LIMIT)
                and try_size(call, group, size, run)
            ):
                break
        far = _far(start, group)
        if far > max(group.accepted):
            try_size(call, group, far, run)
    while True:
        refused = [size for size in group.refused if size > group.base and size % step == 0]
        if not refused:
            return
        top = min(refused)
        hinted = [limit - limit % step for limit in _limits(start, group)]
        hinted = [limit for limit in hinted if max(group.accepted) < limit < top]
        if not hinted:
            break
        for size in (max(hinted), max(hinted) - step, max(hinted) - 2 * step):
            if size > max(group.accepted):
                try_size(call, group, size, run)
        if top == min(size for size in group.refused if size > group.base and size % step == 0):
            break
    taken = [size for size in group.accepted if size < top]
    _halve(call, group, top, max(taken), run)


def _limits(start: Example, group: AxisGroup) -> list[int]:
    """The limits that may be this group's, the largest first: no table has a place for each pixel."""
    path, _ = group.axes[0]
    spec = dict(call_leaves(start.call))[path]
    return (
        sorted(start.limits, reverse=True)[:MOST_LIMITS] if len(spec.sizes) <= TABLED_RANK else []
    )


def _far(start: Example, group: AxisGroup) -> int:
    """A size far above the base, as far as a forward of it costs little."""
    far = max(LARGE, 4 * group.base if group.base <= 2 * STRIDE else 2 * group.base)
    while far > 2 * group.base and not _affordable(start, group, far, MOST_FOR_A_LOOK):
        far //= 2
    return far - far % group.step


def _affordable(start: Example, group: AxisGroup, size: int, most: float) -> bool:
    return resized(start.call, group.axes, size).elements * start.cost <= most


def _halve(call: Call, group: AxisGroup, refused: int, accepted: int, run: Run) -> None:
    step = group.step
    while abs(accepted - refused) > step:
        middle = (accepted + refused) // 2
        middle -= middle % step
        if middle in (accepted, refused):
            middle += step
        if middle in (accepted, refused):
            return
        try_size(call, group, middle, run)
        if middle in group.accepted:
            accepted = middle
        elif middle in group.refused:
            refused = middle
        else:
            return
