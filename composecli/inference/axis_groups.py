"""Groups of axes that change size together, and which sizes the model accepted.

The axes of a group have one size, except for its ties: axes whose size follows from it by a rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from composecli.core.dims import (
    Dim,
    Fixed,
    Free,
    Shape,
    Unknown,
    admits,
    as_free,
    example_size,
    sizes_between,
    sizes_outside,
)
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
    leaves,
    resized,
    size_of,
)
from composecli.core.relations import Where
from composecli.inference.prober import Probe
from composecli.inference.size_rules import SizeRule

Leaves = tuple[tuple[KeyPath, TensorSpec], ...]

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
    `other_values` are results of the same call with other values, and `layouts` the names of the
    axes of images, by path. `where` are stated relations between stated dims.
    """

    call: Call
    result: Tree
    fixed: frozenset[Axis]
    stated: Mapping[KeyPath, Shape]
    limits: tuple[int, ...] = ()
    cost: float = 1.0
    other_values: tuple[Leaves, ...] = ()
    layouts: Mapping[KeyPath, str] = field(default_factory=dict)
    where: Where = ()

    @property
    def related(self) -> frozenset[str]:
        """The names of the stated dims that are related, and are not varied one at a time."""
        return frozenset().union(*(relation.symbols for relation in self.where))


@dataclass(frozen=True, slots=True)
class Tie:
    """An axis whose size follows from the size of a group: `2*H` from `H`.

    `is_factor`: the size is a product, `H*W`, and the rule is the factor that this group has.
    """

    axis: Axis
    rule: SizeRule
    is_factor: bool = False

    def size_after(self, size: int, before: int, after: int) -> int:
        """Return the size of the axis, now `size`, once the group goes from `before` to `after`.

        An axis that is tied without a division moves by as much as its rule does, because it may
        be tied to several groups.
        """
        if self.is_factor:
            return size // max(1, self.rule.at(before)) * self.rule.at(after)
        if self.rule.divisor == 1:
            return size + self.rule.at(after) - self.rule.at(before)
        return self.rule.at(after)


class _Range(NamedTuple):
    """Accepted sizes of the pattern, and rejected ones below, between and above them."""

    accepted: list[int]
    below: set[int]
    between: set[int]
    above: set[int]


@dataclass(slots=True)
class AxisGroup:
    """Axes that change size together under one name, and the outcome at each size that was tried.

    The sizes of the pattern have one of the `residues` when they are divided by `step`. Several
    modules record into a group, so its state changes only through the methods `record`,
    `reject_broadcast_one`, `assign_name`, `assign_step`, `assign_residues`, `raise_floor`,
    `lift_start`, `lift_end`, `keep_base` and `mark_unknown`.
    """

    axes: tuple[Axis, ...]
    base: int
    name: str = ""
    stated: Free | None = None
    ties: tuple[Tie, ...] = ()
    step: int = 1
    residues: tuple[int, ...] = (0,)
    accepted: Mapping[int, Leaves] = field(default_factory=dict)
    rejected: Set[int] = frozenset()
    out_of_memory: Set[int] = frozenset()
    unknown_reason: str = ""
    floor: int = 1
    has_start: bool = True
    has_end: bool = True

    @property
    def is_batch(self) -> bool:
        """Whether its first axis is axis 0, the batch by convention."""
        return self.axes[0][1] == 0

    @property
    def all_axes(self) -> tuple[Axis, ...]:
        """Its axes and those that are tied to them."""
        return (*self.axes, *(tie.axis for tie in self.ties))

    def record(self, size: int, observation: Observation | Untried) -> None:
        """Record the observation of the axes at this size."""
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
        """Set the distance between sizes of the pattern; the base is one of them."""
        self.step = step
        self.residues = (self.base % step,)
        self.floor = 1

    def assign_residues(self, residues: Iterable[int]) -> None:
        """Set the remainders that sizes of the pattern leave when they are divided by the step."""
        self.residues = tuple(sorted(residues))

    @property
    def pattern(self) -> Free:
        """The sizes with an allowed remainder, without limits."""
        return Free(self.name, 1, None, self.step, self.residues)

    def raise_floor(self, size: int) -> None:
        """Set the smallest size that is accepted jointly with those of the other groups."""
        self.floor = size

    @property
    def is_raised(self) -> bool:
        """Whether smaller sizes are accepted, but not jointly with those of the other groups."""
        return any(size < self.floor for size in self._sort_sizes().accepted)

    def lift_start(self) -> None:
        """Count smaller sizes as accepted: only a size of another input made them be refused."""
        self.has_start = False

    def lift_end(self) -> None:
        """Count larger sizes as accepted: only a size of another input made them be refused."""
        self.has_end = False

    def keep_base(self) -> None:
        """Forget the other sizes: they were accepted only beside one size of another input."""
        self.accepted = {self.base: self.accepted[self.base]}

    def mark_unknown(self, reason: str) -> None:
        """Make the dim unknown, because a conclusion from single sizes proved wrong."""
        self.unknown_reason = reason

    def is_on_grid(self, size: int) -> bool:
        """Return whether a size is a whole number of steps from the base."""
        return (size - self.base) % self.step == 0

    def grid_size_from(self, size: int) -> int:
        """Return the smallest size on the grid from this one on."""
        return size + (self.base - size) % self.step

    def grid_size_up_to(self, size: int) -> int:
        """Return the largest size on the grid up to this one."""
        return size - (size - self.base) % self.step

    def allows(self, size: int) -> bool:
        """Return whether the user's or the file's statement allows this size."""
        if self.stated is None:
            return True
        return admits(self.stated, size) is True

    def output_sizes(self, number: int, axis: int) -> dict[int, int]:
        """Return the sizes of one axis of one output tensor, by input size.

        A size that was broadcast follows no rule.
        """
        sizes = dict[int, int]()
        for size, found in self.accepted.items():
            if self.is_broadcast(size):
                continue
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
        if not sizes.accepted or not self._fits_pattern():
            return None
        low, high = sizes.accepted[0], sizes.accepted[-1]
        tried = Free(self.name, low, high, self.step, self.residues)
        refused = sizes.below | sizes.above
        outside = sizes_outside(tried)
        if sizes.accepted == [self.base] and len(outside) == 2 and refused.issuperset(outside):
            return Fixed(self.base)
        if not self._is_supported(sizes, tried):
            return None
        low = example_size(self.pattern, max(self.floor, low))
        if not self.has_start or low == example_size(self.pattern, 1):
            low = 1
        if sizes.above and self.has_end:
            return Free(self.name, low, high, self.step, self.residues)
        return Free(self.name, low, None, self.step, self.residues)

    def _sort_sizes(self) -> _Range:
        """Sort the sizes of the pattern that were tried, without those that were broadcast."""
        accepted = list[int]()
        for size in sorted(self.accepted):
            if admits(self.pattern, size) and not self.is_broadcast(size):
                accepted.append(size)
        rejected = {size for size in self.rejected if admits(self.pattern, size)}
        if not accepted:
            return _Range(accepted, set(), rejected, set())
        below = {size for size in rejected if size < accepted[0]}
        above = {size for size in rejected if size > accepted[-1]}
        between = rejected - below - above
        return _Range(accepted, below, between, above)

    def _fits_pattern(self) -> bool:
        """Return whether each accepted size is of the pattern, unless it was broadcast."""
        return all(admits(self.pattern, size) or self.is_broadcast(size) for size in self.accepted)

    def _is_supported(self, sizes: _Range, tried: Free) -> bool:
        """Return whether the sizes have no hole, exact ends, and are enough for a range."""
        if sizes.between:
            return False
        count = len(sizes.accepted)
        if count < MIN_SIZES_OF_RANGE:
            in_range = sizes_between(tried, tried.low, sizes.accepted[-1])
            if not sizes.above or count != len(in_range):
                return False
        next_sizes = set(sizes_outside(tried))
        if any(size < tried.low and size not in sizes.below for size in next_sizes):
            return False
        return not sizes.above or bool(next_sizes & sizes.above)

    def is_broadcast(self, size: int) -> bool:
        """Return whether a size is far below the others: one patch or frame is broadcast.

        Larger sizes with its remainder, or up to the base with an allowed one, were rejected.
        """
        largest_broadcast = self.base // BROADCAST_RATIO
        if size > largest_broadcast:
            return False
        larger = [other for other in self.rejected if other > size]
        if not admits(self.pattern, size):
            return any((other - size) % self.step == 0 for other in larger)
        return any(other < self.base and admits(self.pattern, other) for other in larger)


def make_group(
    example: Example,
    axes: tuple[Axis, ...],
    stated: Free | None = None,
    ties: tuple[Tie, ...] = (),
) -> AxisGroup:
    """Return a group of these axes; its base is the size of the first of them in the example."""
    base = size_of(example.call, axes[0])
    accepted = {base: tuple(leaves(example.result))}
    if stated is None:
        return AxisGroup(axes, base, ties=ties, accepted=accepted)
    return AxisGroup(
        axes,
        base,
        stated.name,
        stated,
        ties,
        stated.step,
        stated.residues,
        accepted,
    )


def try_size(call: Call, group: AxisGroup, size: int, probe: Probe) -> bool:
    """Return whether the model accepts the group at this size, and record it in the group."""
    if size not in group.accepted and size not in group.rejected:
        changed_call = with_size(call, group, size)
        observation = probe(changed_call)
        group.record(size, observation)
    return size in group.accepted


def with_size(call: Call, group: AxisGroup, size: int) -> Call:
    """Return the call with the axes of the group at this size, and the tied axes at theirs."""
    before = size_of(call, group.axes[0])
    call = resized(call, group.axes, size)
    for tie in group.ties:
        tied_size = tie.size_after(size_of(call, tie.axis), before, size)
        # A rule may lead below 1, where there are no tensors.
        call = resized(call, (tie.axis,), max(0, tied_size))
    return call


def with_sizes(call: Call, sizes: Iterable[tuple[AxisGroup, int]]) -> Call:
    """Return the call with each of these groups resized."""
    for group, size in sizes:
        call = with_size(call, group, size)
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
