"""Variation: the axes of an accepted call that may change, in groups, and what comes of each size that is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from composecli.contract import fresh_name
from composecli.dims import Dim, Fixed, Free, Shape, Unknown, admits
from composecli.observations import Accepted, Observation, Refused
from composecli.trees import Call, Path, TensorSpec, Tree, call_leaves, call_with, leaves

Run = Callable[[Call], Observation]
Axis = tuple[Path, int]
Leaves = tuple[tuple[Path, TensorSpec], ...]

LARGE = 4096


@dataclass(frozen=True, slots=True)
class Start:
    """An accepted call and what it returned; the axes that are known to be fixed, and the dims that are stated."""

    call: Call
    result: Tree
    fixed: frozenset[Axis]
    stated: Mapping[Path, Shape]


@dataclass(slots=True)
class Group:
    """Axes that change size together under one symbol, and what came of each size that was tried."""

    name: str
    axes: tuple[Axis, ...]
    base: int
    stated: Free | None = None
    accepted: dict[int, Leaves] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

    def conclusion(self) -> Dim:
        """What the sizes that were tried allow to say, and no more."""
        took = sorted(self.accepted)
        if self.stated is not None and not self.refused:
            return self.stated
        if self.stated is not None:
            return Unknown(f"stated as {self.stated}; took {listed(took)}; refused {listed(self.refused)}")
        if took == [self.base]:
            return Fixed(self.base)
        low, high = took[0], took[-1]
        below = {size for size in self.refused if size < low}
        above = {size for size in self.refused if size > high}
        whole = self.refused == below | above and len(took) >= 3
        if whole and low - 1 in (*below, 0) and (not above or high + 1 in above):
            return Free(self.name, low, high if above else None)
        refused = f"; refused {listed(self.refused)}" if self.refused else ""
        return Unknown(f"took {listed(took)}{refused}")


def listed(sizes: object) -> str:
    assert isinstance(sizes, set | list)
    return ", ".join(map(str, sorted(sizes)))


def groups_of(start: Start, run: Run) -> Iterator[Group]:
    """Stated axes by name; the others by axis and size, where they do not change alone."""
    used = set[str]()
    specs = dict(call_leaves(start.call))
    stated = dict[str, list[tuple[Axis, Free]]]()
    for path, dims in start.stated.items():
        for axis, dim in enumerate(dims):
            if isinstance(dim, Free):
                stated.setdefault(dim.name, []).append(((path, axis), dim))
    for name, members in stated.items():
        used.add(name)
        (path, axis), dim = members[0]
        yield Group(name, tuple(member for member, _ in members), specs[path].sizes[axis], dim)
    for axes in _tied(start, specs, run):
        path, axis = axes[0]
        sizes = specs[path].sizes
        yield Group(fresh_name(len(sizes), axis, used), axes, sizes[axis])


def _tied(start: Start, specs: Mapping[Path, TensorSpec], run: Run) -> Iterator[tuple[Axis, ...]]:
    together = dict[tuple[int, int], list[Axis]]()
    for path, spec in specs.items():
        if path in start.stated:
            continue
        for axis, size in enumerate(spec.sizes):
            if (path, axis) not in start.fixed and size > 0:
                together.setdefault((axis, size), []).append((path, axis))
    for members in together.values():
        alone = [m for m in members if len(members) > 1 and _changes_alone(start.call, m, run)]
        rest = tuple(member for member in members if member not in alone)
        if len(rest) == 1:
            yield tuple(members)
            continue
        yield from ((member,) for member in alone)
        if rest:
            yield rest


def _changes_alone(call: Call, axis: Axis, run: Run) -> bool:
    """Whether an axis takes other sizes while those like it keep theirs; one size is not enough, 1 broadcasts."""
    size = dict(call_leaves(call))[axis[0]].sizes[axis[1]]
    others = [other for other in (size + 1, size + 3, size - 1) if other]
    return all(isinstance(run(resized(call, (axis,), other)), Accepted) for other in others)


def vary(call: Call, group: Group, run: Run) -> None:
    """Try the sizes around the base, then narrow down the smallest and the largest that are taken."""
    for size in _sizes_to_try(group):
        try_size(call, group, size, run)
    _find_edges(call, group, run)


def _sizes_to_try(group: Group) -> list[int]:
    base, axis = group.base, group.axes[0][1]
    step = group.stated.step if group.stated is not None else 1
    if axis == 0 or base == 1:
        wanted = [base + step, base - step, base + 3 * step, base + 2 * step]
    else:
        double = base * 2 if base <= LARGE else base + base // 4
        wanted = [base + step, double - double % step, base - step, base + 2 * step]
    smallest = 1 if axis == 0 else 2
    fits = [size for size in dict.fromkeys(wanted) if size >= smallest and allowed(group, size)]
    return fits[:3]


def _find_edges(call: Call, group: Group, run: Run) -> None:
    """Narrow down the smallest size that is taken, and the largest where a larger one was refused.

    Halving takes it that between an accepted and a refused size there is one edge; `conclusion` believes the
    result only where nothing that was tried speaks against it.
    """
    if group.stated is not None or len(group.accepted) < 2:
        return
    for small in (1, 2):
        try_size(call, group, small, run)
    if 1 in group.accepted and 2 in group.refused and group.base != 1:
        # A size of 1 is broadcast where others are not taken: it says nothing of the smallest one.
        del group.accepted[1]
    _halve(call, group, max((size for size in group.refused if size < group.base), default=0), min(group.accepted), run)
    refused_above = [size for size in group.refused if size > group.base]
    if refused_above:
        _halve(call, group, min(refused_above), max(group.accepted), run)


def _halve(call: Call, group: Group, refused: int, accepted: int, run: Run) -> None:
    while abs(accepted - refused) > 1 and (refused or 1 not in group.accepted):
        middle = (accepted + refused) // 2
        try_size(call, group, middle, run)
        if middle in group.accepted:
            accepted = middle
        elif middle in group.refused:
            refused = middle
        else:
            return


def allowed(group: Group, size: int) -> bool:
    return group.stated is None or admits(group.stated, size) is True


def try_size(call: Call, group: Group, size: int, run: Run) -> None:
    if size in group.accepted or size in group.refused:
        return
    match run(resized(call, group.axes, size)):
        case Accepted() as seen:
            group.accepted[size] = tuple(leaves(seen.result))
        case Refused() as refused if not refused.out_of_memory:
            group.refused.add(size)


def resized(call: Call, axes: tuple[Axis, ...], size: int) -> Call:
    """The call with this size on each of these axes; values of a sample no longer apply."""
    changes = dict[Path, TensorSpec]()
    specs = dict(call_leaves(call))
    for path, axis in axes:
        spec = changes.get(path, specs[path])
        sizes = (*spec.sizes[:axis], size, *spec.sizes[axis + 1 :])
        changes[path] = replace(spec, sizes=sizes, sample=None)
    return call_with(call, changes)


def column(group: Group, number: int, axis: int) -> dict[int, int]:
    """Input size -> size of one output axis."""
    return {size: found[number][1].sizes[axis] for size, found in group.accepted.items()}


def same_structure(one: Leaves, other: Leaves) -> bool:
    def form(found: Leaves) -> list[tuple[Path, str, int]]:
        return [(path, spec.dtype, len(spec.sizes)) for path, spec in found]

    return form(one) == form(other)
