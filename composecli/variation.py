"""Variation: the axes of an accepted call that may change, in groups, and what comes of each size that is tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from composecli.dims import Dim, Fixed, Free, Shape, Unknown, admits
from composecli.observations import Accepted, Observation, Refused, Untried
from composecli.trees import Axis, Call, Path, TensorSpec, Tree, call_leaves, leaves, resized

Run = Callable[[Call], Observation | Untried]
Leaves = tuple[tuple[Path, TensorSpec], ...]

STRIDE = 32
LARGE = 128
LEAST_STEP = 4
MOST_LIMITS = 6
TABLED_RANK = 3
# Multiplications, by the estimate of `Start.cost`.
MOST_FOR_A_LOOK = 5e9
MOST_FOR_A_LIMIT = 3e11


@dataclass(frozen=True, slots=True)
class Start:
    """An accepted call and what it returned; the axes that are known to be fixed, and the dims that are stated.

    `limits` are sizes that something which the model holds has, and at which a free axis may end; `cost` is about
    how many multiplications one element of the input stands for.
    """

    call: Call
    result: Tree
    fixed: frozenset[Axis]
    stated: Mapping[Path, Shape]
    limits: tuple[int, ...] = ()
    cost: float = 1.0


@dataclass(slots=True)
class Group:
    """Axes that change size together under one symbol, and what came of each size that was tried.

    From `floor` on the sizes are taken together with the smallest of the other groups.
    """

    name: str
    axes: tuple[Axis, ...]
    base: int
    stated: Free | None = None
    step: int = 1
    accepted: dict[int, Leaves] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    why_open: str = ""
    floor: int = 1

    def conclusion(self) -> Dim:
        """What the sizes that were tried allow to say, and no more."""
        took = sorted(self.accepted)
        if self.why_open:
            return Unknown(f"{self.why_open}; took {listed(took)}{self._refusals()}")
        if self.stated is not None and not self.refused:
            return self.stated
        if self.stated is not None:
            return Unknown(f"stated as {self.stated}; took {listed(took)}{self._refusals()}")
        if took == [self.base]:
            return Fixed(self.base)
        return self._range(took) or Unknown(f"took {listed(took)}{self._refusals()}")

    def _range(self, took: list[int]) -> Free | None:
        """The range that took these sizes, all of one step, and refused the next on both sides. Strides that round up
        take sizes below a multiple, too; these are in the evidence and not in the range."""
        step = self.step
        tried = {size for size in self.refused if size % step == 0}
        beside = [size for size in took if size % step]
        took = [size for size in took if size % step == 0]
        if not took or any(size % step <= step // 2 or step < LEAST_STEP for size in beside):
            return None
        low, high = took[0], took[-1]
        below = {size for size in tried if size < low}
        above = {size for size in tried if size > high}
        if tried != below | above:
            return None
        if len(took) < 3 and not (above and len(took) == (high - low) // step + 1):
            return None
        if low - step not in (*below, 0) or (above and high + step not in above):
            return None
        low = max(self.floor, low)
        return Free(self.name, low if low > step else 1, high if above else None, step)

    def _refusals(self) -> str:
        return f"; refused {listed(self.refused)}" if self.refused else ""


def listed(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(sizes)))


def groups_of(start: Start, run: Run) -> Iterator[Group]:
    """Stated axes by name; the others alone where they move alone, with others of their size where only that is taken.

    A group that moves in no way that was tried has its base as the only size.
    """
    specs = dict(call_leaves(start.call))
    stated = dict[str, list[tuple[Axis, Free]]]()
    for path, dims in start.stated.items():
        for axis, dim in enumerate(dims):
            if isinstance(dim, Free):
                stated.setdefault(dim.name, []).append(((path, axis), dim))
    for name, members in stated.items():
        (path, axis), dim = members[0]
        yield Group(name, tuple(member for member, _ in members), specs[path].sizes[axis], dim, dim.step)
    axes = [
        (path, axis)
        for path, spec in specs.items()
        if path not in start.stated
        for axis, size in enumerate(spec.sizes)
        if (path, axis) not in start.fixed and size > 0
    ]
    singles = [_group(start, (axis,)) for axis in axes]
    tied = list(_tied_across(start, singles, run))
    bound = {axis for group in tied for axis in group.axes}
    stuck = [group for group in singles if group.axes[0] not in bound and not _moves(start.call, group, run)]
    tied += _tied(start, stuck, run)
    bound = {axis for group in tied for axis in group.axes}
    free = [group for group in singles if not bound & set(group.axes)]
    yield from sorted((*free, *tied), key=lambda group: axes.index(group.axes[0]))


def _group(start: Start, axes: tuple[Axis, ...]) -> Group:
    path, axis = axes[0]
    base = dict(call_leaves(start.call))[path].sizes[axis]
    group = Group("", axes, base)
    group.accepted[base] = tuple(leaves(start.result))
    return group


def _moves(call: Call, group: Group, run: Run) -> bool:
    """Whether any other size is taken; 1 does not count, it broadcasts."""
    base = group.base
    far = [base + STRIDE, base - STRIDE] if base > STRIDE else []
    double = [2 * base] if base <= 2 * STRIDE else []
    sizes = (base + 1, *double, *far, base - 1, base // 2)
    return any(try_size(call, group, size, run) for size in sizes if size > 1)


def _tied_across(start: Start, singles: list[Group], run: Run) -> Iterator[Group]:
    """The same axis of several inputs, where one of them does not take the next size alone and all together do."""
    alike = dict[tuple[int, int], list[Group]]()
    for group in singles:
        alike.setdefault((group.axes[0][1], group.base), []).append(group)
    for members in alike.values():
        if len(members) > 1 and not all(try_size(start.call, group, group.base + 1, run) for group in members):
            together = _group(start, tuple(group.axes[0] for group in members))
            if try_size(start.call, together, together.base + 1, run):
                yield together


def _tied(start: Start, stuck: list[Group], run: Run) -> Iterator[Group]:
    """Groups of axes of one size that move together and not alone: the same axis of several inputs first, then any."""
    by_size = dict[int, list[Axis]]()
    for group in stuck:
        by_size.setdefault(group.base, []).append(group.axes[0])
    for members in by_size.values():
        left = list(members)
        for number in sorted({axis for _, axis in members}):
            same = tuple(member for member in left if member[1] == number)
            if 1 < len(same) < len(members):
                group = _group(start, same)
                if _moves(start.call, group, run):
                    yield group
                    left = [member for member in left if member not in same]
        if len(left) > 1:
            group = _group(start, tuple(left))
            if _moves(start.call, group, run):
                yield group


def vary(start: Start, group: Group, run: Run, like: Group | None = None) -> None:
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


def _ends(group: Group) -> list[int]:
    """The ends of a group and the sizes beyond them."""
    found = group.conclusion()
    if not isinstance(found, Free):
        return []
    high = [found.high, found.high + found.step] if found.high is not None else []
    return [size for size in (found.low, found.low - found.step, *high) if size > 0]


def _stated_sizes(group: Group) -> list[int]:
    base, step = group.base, group.step
    wanted = [base + step, 2 * base - 2 * base % step, base - step, base + 2 * step, base + 3 * step]
    return [size for size in dict.fromkeys(wanted) if size >= 1 and allowed(group, size)][:3]


def _find_step(call: Call, group: Group, run: Run) -> None:
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
    return [n for n in range(2, number + 1) if number % n == 0 and all(n % other for other in range(2, n))]


def _find_low(call: Call, group: Group, run: Run) -> None:
    """Narrow down the smallest size that is taken, by halving between it and one that is refused."""
    step = group.step
    for small in (step, 2 * step):
        try_size(call, group, small, run)
    if group.base != 1 and 1 in group.accepted and 2 in group.refused:
        # A size of 1 is broadcast where others are not taken: it says nothing of the smallest one.
        del group.accepted[1]
        group.refused.add(1)
    below = max((size for size in group.refused if size < group.base and size % step == 0), default=0)
    above = [size for size in group.accepted if size > below]
    _halve(call, group, below, min(above), run)


def _find_high(start: Start, group: Group, run: Run) -> None:
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


def _limits(start: Start, group: Group) -> list[int]:
    """The limits that may be this group's, the largest first: no table has a place for each pixel."""
    path, _ = group.axes[0]
    spec = dict(call_leaves(start.call))[path]
    return sorted(start.limits, reverse=True)[:MOST_LIMITS] if len(spec.sizes) <= TABLED_RANK else []


def _far(start: Start, group: Group) -> int:
    """A size far above the base, as far as a forward of it costs little."""
    far = max(LARGE, 4 * group.base if group.base <= 2 * STRIDE else 2 * group.base)
    while far > 2 * group.base and not _affordable(start, group, far, MOST_FOR_A_LOOK):
        far //= 2
    return far - far % group.step


def _affordable(start: Start, group: Group, size: int, most: float) -> bool:
    elements = sum(math.prod(spec.sizes) for _, spec in call_leaves(resized(start.call, group.axes, size)))
    return elements * start.cost <= most


def _halve(call: Call, group: Group, refused: int, accepted: int, run: Run) -> None:
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


def allowed(group: Group, size: int) -> bool:
    return group.stated is None or admits(group.stated, size) is True


def try_size(call: Call, group: Group, size: int, run: Run) -> bool:
    """Whether the size is taken."""
    if size in group.accepted or size in group.refused:
        return size in group.accepted
    match run(resized(call, group.axes, size)):
        case Accepted() as seen:
            group.accepted[size] = tuple(leaves(seen.result))
            return True
        case Refused() as refused if not refused.out_of_memory:
            group.refused.add(size)
        case Untried(reason):
            group.why_open = reason
    return False


def column(group: Group, number: int, axis: int) -> dict[int, int]:
    """Input size -> size of one output axis."""
    return {size: found[number][1].sizes[axis] for size, found in group.accepted.items()}


def same_structure(one: Leaves, other: Leaves) -> bool:
    def form(found: Leaves) -> list[tuple[Path, str, int]]:
        return [(path, spec.dtype, len(spec.sizes)) for path, spec in found]

    return form(one) == form(other)
