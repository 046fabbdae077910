"""Groups: the axes of an accepted call that may change, those together that have to, and what came of each size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from composecli.core.dims import Dim, Fixed, Free, Shape, Unknown, admits
from composecli.core.observations import Accepted, Rejected, Untried
from composecli.core.pytree import (
    Axis,
    Call,
    KeyPath,
    TensorSpec,
    Tree,
    call_leaves,
    leaves,
    resized,
)
from composecli.inference.prober import Run

Leaves = tuple[tuple[KeyPath, TensorSpec], ...]

STRIDE = 32
LEAST_STEP = 4
FAR_BELOW = 8


@dataclass(frozen=True, slots=True)
class Example:
    """An accepted call and what it returned; the axes that are known to be fixed, and the dims that are stated.

    `limits` are sizes that something which the model holds has, and at which a free axis may end; `cost` is about
    how many multiplications one element of the input stands for.
    """

    call: Call
    result: Tree
    fixed: frozenset[Axis]
    stated: Mapping[KeyPath, Shape]
    limits: tuple[int, ...] = ()
    cost: float = 1.0


@dataclass(slots=True)
class AxisGroup:
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
    no_memory: set[int] = field(default_factory=set)
    unknown_reason: str = ""
    floor: int = 1

    def dim(self) -> Dim:
        """What the sizes that were tried allow to say, and no more."""
        took = sorted(self.accepted)
        if self.unknown_reason:
            return Unknown(f"{self.unknown_reason}; took {listed(took)}{self._refusals()}")
        if self.stated is not None and not self.refused:
            return self.stated
        if self.stated is not None:
            return Unknown(f"stated as {self.stated}; took {listed(took)}{self._refusals()}")
        if took == [self.base] and self.no_memory:
            return Unknown(f"there was no memory for {listed(self.no_memory)}")
        if took == [self.base]:
            return Fixed(self.base)
        return self._range(took) or Unknown(f"took {listed(took)}{self._refusals()}")

    def _range(self, took: list[int]) -> Free | Fixed | None:
        """The range that took these sizes, all of one step, and refused the next on both sides. Strides that round up
        take sizes below a multiple, too; these are in the evidence and not in the range."""
        step = self.step
        tried = {size for size in self.refused if size % step == 0}
        beside = [size for size in took if size % step and not self._broadcasts(size)]
        took = [size for size in took if size % step == 0 and not self._broadcasts(size)]
        if not took or any(size % step <= step // 2 or step < LEAST_STEP for size in beside):
            return None
        low, high = took[0], took[-1]
        if took == [self.base] and {low - step, low + step} <= tried:
            return Fixed(self.base)
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

    def _broadcasts(self, size: int) -> bool:
        """Whether a size is far below the others that are taken: one patch, one frame, which is only broadcast."""
        between = (
            other for other in self.refused if size < other < self.base and other % self.step == 0
        )
        return size <= self.base // FAR_BELOW and any(between)

    def _refusals(self) -> str:
        return f"; refused {listed(self.refused)}" if self.refused else ""


def listed(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(sizes)))


def groups_of(start: Example, run: Run) -> Iterator[AxisGroup]:
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
        _, dim = members[0]
        group = group_of(start, tuple(member for member, _ in members))
        group.name, group.stated, group.step = name, dim, dim.step
        yield group
    axes = [
        (path, axis)
        for path, spec in specs.items()
        if path not in start.stated
        for axis, size in enumerate(spec.sizes)
        if (path, axis) not in start.fixed and size > 0
    ]
    singles = [group_of(start, (axis,)) for axis in axes]
    tied = list(_tied_across(start, singles, run))
    bound = {axis for group in tied for axis in group.axes}
    stuck = [
        group
        for group in singles
        if group.axes[0] not in bound and not _moves(start.call, group, run)
    ]
    tied += _tied(start, stuck, run)
    bound = {axis for group in tied for axis in group.axes}
    free = [group for group in singles if not bound & set(group.axes)]
    yield from sorted((*free, *tied), key=lambda group: axes.index(group.axes[0]))


def group_of(start: Example, axes: tuple[Axis, ...]) -> AxisGroup:
    """These axes, with the size of the first of them as the base."""
    path, axis = axes[0]
    base = dict(call_leaves(start.call))[path].sizes[axis]
    group = AxisGroup("", axes, base)
    group.accepted[base] = tuple(leaves(start.result))
    return group


def _moves(call: Call, group: AxisGroup, run: Run) -> bool:
    """Whether any other size is taken; 1 does not count, it broadcasts."""
    base = group.base
    far = [base + STRIDE, base - STRIDE] if base > STRIDE else []
    double = [2 * base] if base <= 2 * STRIDE else []
    sizes = (base + 1, *double, *far, base - 1, base // 2)
    return any(try_size(call, group, size, run) for size in sizes if size > 1)


def _tied_across(start: Example, singles: list[AxisGroup], run: Run) -> Iterator[AxisGroup]:
    """The same axis of several inputs, where one of them does not take the next size alone and all together do."""
    alike = dict[tuple[int, int], list[AxisGroup]]()
    for group in singles:
        alike.setdefault((group.axes[0][1], group.base), []).append(group)
    for members in alike.values():
        if len(members) > 1 and not all(
            try_size(start.call, group, group.base + 1, run) for group in members
        ):
            together = group_of(start, tuple(group.axes[0] for group in members))
            if try_size(start.call, together, together.base + 1, run):
                yield together


def _tied(start: Example, stuck: list[AxisGroup], run: Run) -> Iterator[AxisGroup]:
    """Groups of axes of one size that move together and not alone: the same axis of several inputs first, then any."""
    by_size = dict[int, list[Axis]]()
    for group in stuck:
        by_size.setdefault(group.base, []).append(group.axes[0])
    for members in by_size.values():
        left = list(members)
        for number in sorted({axis for _, axis in members}):
            same = tuple(member for member in left if member[1] == number)
            if 1 < len(same) < len(members):
                group = group_of(start, same)
                if _moves(start.call, group, run):
                    yield group
                    left = [member for member in left if member not in same]
        if len(left) > 1:
            group = group_of(start, tuple(left))
            if _moves(start.call, group, run):
                yield group


def with_sizes(call: Call, sizes: Iterable[tuple[AxisGroup, int]]) -> Call:
    """The call with each of these groups at a size."""
    for group, size in sizes:
        call = resized(call, group.axes, size)
    return call


def allowed(group: AxisGroup, size: int) -> bool:
    return group.stated is None or admits(group.stated, size) is True


def try_size(call: Call, group: AxisGroup, size: int, run: Run) -> bool:
    """Whether the size is taken."""
    if size in group.accepted or size in group.refused:
        return size in group.accepted
    match run(resized(call, group.axes, size)):
        case Accepted() as seen:
            group.accepted[size] = tuple(leaves(seen.result))
            return True
        case Rejected(out_of_memory=True):
            group.no_memory.add(size)
        case Rejected():
            group.refused.add(size)
        case Untried(reason):
            group.unknown_reason = reason
    return False


def column(group: AxisGroup, number: int, axis: int) -> dict[int, int]:
    """Input size -> size of one output axis."""
    return {size: found[number][1].sizes[axis] for size, found in group.accepted.items()}


def same_structure(one: Leaves, other: Leaves) -> bool:
    def form(found: Leaves) -> list[tuple[KeyPath, str, int]]:
        return [(path, spec.dtype, len(spec.sizes)) for path, spec in found]

    return form(one) == form(other)
