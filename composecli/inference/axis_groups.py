"""Groups of axes that change size together, and which sizes the model accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from composecli.core.dims import Dim, Fixed, Free, Shape, Unknown, admits, as_free
from composecli.core.observations import (
    Accepted,
    Observation,
    Rejected,
    RejectionKind,
    Untried,
)
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
from composecli.inference.prober import Probe

Leaves = tuple[tuple[KeyPath, TensorSpec], ...]

# With a smaller step, sizes that are rounded up look like sizes without a pattern.
MIN_ROUNDED_STEP = 4
# A size this many times below the base was probably only broadcast.
BROADCAST_RATIO = 8
# Fewer accepted sizes make no range, unless they are all the sizes up to a rejected one.
MIN_SIZES_OF_RANGE = 3


@dataclass(frozen=True, slots=True)
class Example:
    """An accepted call and its result, from which the axes are varied.

    `fixed` are axes that are known to be fixed, and `stated` are dims that are known, by the path
    of their tensor. `limits` are lengths of tables that the model contains, at which a free axis
    may end. `cost` is roughly how many multiplications one element of the input causes.
    """

    call: Call
    result: Tree
    fixed: frozenset[Axis]
    stated: Mapping[KeyPath, Shape]
    limits: tuple[int, ...] = ()
    cost: float = 1.0


class _Range(NamedTuple):
    """Accepted multiples of the step, and rejected ones below, between and above them."""

    accepted: list[int]
    below: set[int]
    between: set[int]
    above: set[int]


@dataclass(slots=True)
class AxisGroup:
    """Axes that change size together under one name, and what happened at each size that was tried.

    Several modules record into a group, so its state changes only through the methods
    `record`, `reject_broadcast_one`, `assign_name`, `assign_step`, `raise_floor` and
    `mark_unknown`.
    """

    axes: tuple[Axis, ...]
    base: int
    name: str = ""
    stated: Free | None = None
    step: int = 1
    accepted: Mapping[int, Leaves] = field(default_factory=dict)
    rejected: Set[int] = frozenset()
    out_of_memory: Set[int] = frozenset()
    unknown_reason: str = ""
    floor: int = 1

    @property
    def is_batch(self) -> bool:
        """Whether its first axis is axis 0, the batch by convention."""
        return self.axes[0][1] == 0

    def record(self, size: int, observation: Observation | Untried) -> None:
        """Record what happened when the axes were resized to `size`."""
        match observation:
            case Accepted():
                found = tuple(leaves(observation.result))
                self.accepted = {**self.accepted, size: found}
            case Rejected(kind=RejectionKind.OUT_OF_MEMORY):
                self.out_of_memory |= {size}
            case Rejected():
                self.rejected |= {size}
            case Untried(reason):
                self.unknown_reason = reason

    def reject_broadcast_one(self) -> None:
        """Count size 1 as rejected: it was accepted only because it broadcasts."""
        remaining = dict(self.accepted)
        remaining.pop(1, None)
        self.accepted = remaining
        self.rejected |= {1}

    def assign_name(self, name: str) -> None:
        """Set the name under which the group appears in the contract."""
        self.name = name

    def assign_step(self, step: int) -> None:
        """Set the number that all sizes of the group are multiples of."""
        self.step = step

    def raise_floor(self, size: int) -> None:
        """Set the smallest size that is accepted jointly with those of the other groups."""
        self.floor = size

    def mark_unknown(self, reason: str) -> None:
        """Make the dim unknown, because a conclusion from single sizes proved wrong."""
        self.unknown_reason = reason

    def allows(self, size: int) -> bool:
        """Return whether the user's or the file's statement allows this size."""
        if self.stated is None:
            return True
        return admits(self.stated, size) is True

    def output_sizes(self, number: int, axis: int) -> dict[int, int]:
        """Return the sizes of one axis of one output tensor, by input size."""
        sizes = dict[int, int]()
        for size, found in self.accepted.items():
            _, spec = found[number]
            sizes[size] = spec.sizes[axis]
        return sizes

    def dim(self) -> Dim:
        """Return the dim that the sizes tried so far support."""
        accepted = sorted(self.accepted)
        tried = f"took {join_sizes(accepted)}"
        if self.rejected:
            tried += f"; refused {join_sizes(self.rejected)}"
        if self.unknown_reason:
            return Unknown(f"{self.unknown_reason}; {tried}")
        if self.stated is not None:
            if self.rejected:
                return Unknown(f"stated as {self.stated}; {tried}")
            return self.stated
        if accepted == [self.base]:
            if self.out_of_memory:
                return Unknown(f"out of memory at {join_sizes(self.out_of_memory)}")
            return Fixed(self.base)
        return self._range_dim() or Unknown(tried)

    def free_dim(self) -> Free | None:
        """Return the dim if it is free; otherwise None."""
        return as_free(self.dim())

    def _range_dim(self) -> Free | Fixed | None:
        """Return the range of accepted sizes; None if they are not a range.

        With accepted sizes 16, 32, 48, 224 and rejected sizes 8, 17, 24, the step is 16 and the
        range is `H%16==0`. If 240 was rejected too, it is `H<=224 & H%16==0`.
        """
        sizes = self._sort_sizes()
        step = self.step
        if not sizes.accepted or not self._rounds_up_to_step():
            return None
        low = sizes.accepted[0]
        high = sizes.accepted[-1]
        ends_below = low - step in sizes.below
        ends_above = high + step in sizes.above
        if sizes.accepted == [self.base] and ends_below and ends_above:
            return Fixed(self.base)
        if not self._is_supported(sizes):
            return None
        low = max(self.floor, low)
        if low <= step:
            low = 1
        if sizes.above:
            return Free(self.name, low, high, step)
        return Free(self.name, low, None, step)

    def _sort_sizes(self) -> _Range:
        """Sort the multiples of the step that were tried, without those that were broadcast."""
        accepted = list[int]()
        for size in sorted(self.accepted):
            if size % self.step == 0 and not self._is_broadcast(size):
                accepted.append(size)
        rejected = {size for size in self.rejected if size % self.step == 0}
        if not accepted:
            return _Range(accepted, set(), rejected, set())
        below = {size for size in rejected if size < accepted[0]}
        above = {size for size in rejected if size > accepted[-1]}
        between = rejected - below - above
        return _Range(accepted, below, between, above)

    def _rounds_up_to_step(self) -> bool:
        """Return whether each accepted size is a multiple of the step, or shortly below one.

        A stride that rounds up accepts such sizes. They are in the evidence and not in the range.
        """
        for size in self.accepted:
            remainder = size % self.step
            if remainder == 0 or self._is_broadcast(size):
                continue
            is_far_below = remainder <= self.step // 2
            if is_far_below or self.step < MIN_ROUNDED_STEP:
                return False
        return True

    def _is_supported(self, sizes: _Range) -> bool:
        """Return whether the sizes have no hole, exact ends, and are enough for a range."""
        if sizes.between:
            return False
        low = sizes.accepted[0]
        high = sizes.accepted[-1]
        count = len(sizes.accepted)
        if count < MIN_SIZES_OF_RANGE:
            count_without_holes = (high - low) // self.step + 1
            if not sizes.above or count != count_without_holes:
                return False
        next_lower = low - self.step
        if low != self.step and next_lower not in sizes.below:
            return False
        next_higher = high + self.step
        return not sizes.above or next_higher in sizes.above

    def _is_broadcast(self, size: int) -> bool:
        """Return whether a size is far below the others: one patch or frame is broadcast."""
        largest_broadcast = self.base // BROADCAST_RATIO
        if size > largest_broadcast:
            return False
        multiples = (other for other in self.rejected if other % self.step == 0)
        return any(size < other < self.base for other in multiples)


def make_group(example: Example, axes: tuple[Axis, ...], stated: Free | None = None) -> AxisGroup:
    """Return a group of these axes; its base is the size of the first of them in the example."""
    path, axis = axes[0]
    specs = dict(call_leaves(example.call))
    base = specs[path].sizes[axis]
    accepted = {base: tuple(leaves(example.result))}
    if stated is None:
        return AxisGroup(axes, base, accepted=accepted)
    return AxisGroup(axes, base, stated.name, stated, stated.step, accepted)


def try_size(call: Call, group: AxisGroup, size: int, probe: Probe) -> bool:
    """Return whether the model accepts the group at this size, and record it in the group."""
    if size not in group.accepted and size not in group.rejected:
        changed_call = resized(call, group.axes, size)
        observation = probe(changed_call)
        group.record(size, observation)
    return size in group.accepted


def with_sizes(call: Call, sizes: Iterable[tuple[AxisGroup, int]]) -> Call:
    """Return the call with each of these groups resized."""
    for group, size in sizes:
        call = resized(call, group.axes, size)
    return call


def join_sizes(sizes: Iterable[int]) -> str:
    """Return the sizes in order as text: `1, 2, 64`."""
    in_order = sorted(sizes)
    return ", ".join(map(str, in_order))


def same_structure(one: Leaves, other: Leaves) -> bool:
    """Return whether two results have the same tensors, up to their sizes."""
    return _structure(one) == _structure(other)


def _structure(found: Leaves) -> list[tuple[KeyPath, str, int]]:
    """Return the path, dtype and rank of each tensor."""
    return [(path, spec.dtype, len(spec.sizes)) for path, spec in found]
