"""Axes: which dims of an accepted call are free, found by probing, and how the output sizes follow from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from composecli.contract import Contract, Port, fresh_name, output_name
from composecli.dims import Dim, Expr, Fixed, Free, Shape, Symbol, Unknown, admits, as_dim
from composecli.fit import Moved, SizeRule, candidates, jointly, splitting_size
from composecli.observations import Accepted, Observation, Refused
from composecli.trees import Call, Path, TensorSpec, Tree, call_leaves, call_with, leaves

Run = Callable[[Call], Observation]
Axis = tuple[Path, int]
Leaves = tuple[tuple[Path, TensorSpec], ...]

MOST_SPLITS = 6
SPLIT_RANGE = 70
LARGE = 4096


@dataclass(frozen=True, slots=True)
class Start:
    """An accepted call and what it returned; the axes that are known to be fixed, and the dims that are stated."""

    call: Call
    result: Tree
    fixed: frozenset[Axis]
    stated: Mapping[Path, Shape]


@dataclass(frozen=True, slots=True)
class Explored:
    inputs: Mapping[Path, Shape]
    outputs: tuple[Port, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Group:
    """Axes that change size together under one symbol, and what came of each size that was tried."""

    name: str
    axes: tuple[Axis, ...]
    base: int
    stated: Free | None = None
    accepted: dict[int, Leaves] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

    def conclusion(self) -> Dim:
        """What the sizes that were tried allow to say, and no more."""
        if self.stated is not None:
            return self.stated
        took = sorted(self.accepted)
        if took == [self.base]:
            return Fixed(self.base)
        low, high = took[0], took[-1]
        below = {size for size in self.refused if size < low}
        above = {size for size in self.refused if size > high}
        whole = self.refused == below | above and len(took) >= 3
        if whole and low - 1 in (*below, 0) and (not above or high + 1 in above):
            return Free(self.name, low, high if above else None)
        refused = f"; refused {_listed(self.refused)}" if self.refused else ""
        return Unknown(f"took {_listed(took)}{refused}")


def _listed(sizes: object) -> str:
    assert isinstance(sizes, set | list)
    return ", ".join(map(str, sorted(sizes)))


def explore(start: Start, run: Run) -> Explored:
    """Vary every axis that is not fixed, and fit the output sizes to what was seen."""
    base = tuple(leaves(start.result))
    groups = list(_groups(start, run))
    for group in groups:
        group.accepted[group.base] = base
        for size in _sizes_to_try(group):
            _try(start.call, group, size, run)
        _find_edges(start.call, group, run)
    for group in groups:
        _split(start.call, group, run)
    dims = _input_dims(start, groups)
    seen = _Seen(base, _move_together(start.call, groups, base, run))
    outputs = tuple(_output_port(number, seen, groups) for number in range(len(base)))
    return Explored(dims, outputs, tuple(_notes(groups)))


def _groups(start: Start, run: Run) -> Iterator[_Group]:
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
        yield _Group(name, tuple(member for member, _ in members), specs[path].sizes[axis], dim)
    for axes in _tied(start, specs, run):
        path, axis = axes[0]
        sizes = specs[path].sizes
        yield _Group(fresh_name(len(sizes), axis, used), axes, sizes[axis])


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


def _sizes_to_try(group: _Group) -> list[int]:
    base, axis = group.base, group.axes[0][1]
    if axis == 0 or base == 1:
        wanted = [base + 1, base - 1, base + 3, base + 2]
    else:
        wanted = [base + 1, base * 2 if base <= LARGE else base + base // 4, base - 1, base + 2]
    smallest = 1 if axis == 0 else 2
    fits = [size for size in wanted if size >= smallest and _allowed(group, size)]
    return fits[:3]


def _find_edges(call: Call, group: _Group, run: Run) -> None:
    """Narrow down the smallest size that is taken, and the largest where a larger one was refused.

    Halving takes it that between an accepted and a refused size there is one edge; `conclusion` believes the
    result only where nothing that was tried speaks against it.
    """
    if group.stated is not None or len(group.accepted) < 2:
        return
    _try(call, group, 1, run)
    _halve(call, group, max((size for size in group.refused if size < group.base), default=0), min(group.accepted), run)
    refused_above = [size for size in group.refused if size > group.base]
    if refused_above:
        _halve(call, group, min(refused_above), max(group.accepted), run)


def _halve(call: Call, group: _Group, refused: int, accepted: int, run: Run) -> None:
    while abs(accepted - refused) > 1 and (refused or 1 not in group.accepted):
        middle = (accepted + refused) // 2
        _try(call, group, middle, run)
        if middle in group.accepted:
            accepted = middle
        elif middle in group.refused:
            refused = middle
        else:
            return


def _allowed(group: _Group, size: int) -> bool:
    return group.stated is None or admits(group.stated, size) is True


def _try(call: Call, group: _Group, size: int, run: Run) -> None:
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


def _same_structure(one: Leaves, other: Leaves) -> bool:
    def form(found: Leaves) -> list[tuple[Path, str, int]]:
        return [(path, spec.dtype, len(spec.sizes)) for path, spec in found]

    return form(one) == form(other)


def _split(call: Call, group: _Group, run: Run) -> None:
    """Probe the sizes that tell the expressions apart which still fit an output axis."""
    for _ in range(MOST_SPLITS):
        open_fits = [rules for rules in _fits(group) if len(rules) > 1]
        tried = group.accepted.keys() | group.refused
        sizes = [
            size
            for size in range(group.base + 1, group.base + SPLIT_RANGE)
            if size not in tried and _allowed(group, size)
        ]
        size = next(filter(None, (splitting_size(rules, sizes) for rules in open_fits)), None)
        if size is None:
            return
        _try(call, group, size, run)


def _fits(group: _Group) -> Iterator[tuple[SizeRule, ...]]:
    base = group.accepted[group.base]
    if not all(_same_structure(base, found) for found in group.accepted.values()):
        return
    for number, (_, spec) in enumerate(base):
        for axis in range(len(spec.sizes)):
            yield candidates(_column(group, number, axis))


def _column(group: _Group, number: int, axis: int) -> dict[int, int]:
    """Input size -> size of one output axis."""
    return {size: found[number][1].sizes[axis] for size, found in group.accepted.items()}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the base call returned, and what calls with several symbols moved at once did, with their sizes."""

    base: Leaves
    moved: Mapping[frozenset[str], tuple[Mapping[str, int], Leaves]]


def _move_together(
    call: Call, groups: list[_Group], base: Leaves, run: Run
) -> dict[frozenset[str], tuple[Mapping[str, int], Leaves]]:
    """One forward for each set of symbols that some output axis changes with, all of them at another size."""
    if not all(_same_structure(base, found) for group in groups for found in group.accepted.values()):
        return {}
    found = dict[frozenset[str], tuple[Mapping[str, int], Leaves]]()
    for number, (_, spec) in enumerate(base):
        for axis in range(len(spec.sizes)):
            moving = _moving(number, axis, groups)
            names = frozenset(group.name for group in moving)
            if len(moving) < 2 or names in found:
                continue
            changed, sizes = call, dict[str, int]()
            for group in moving:
                sizes[group.name] = max(size for size in group.accepted if size != group.base)
                changed = resized(changed, group.axes, sizes[group.name])
            seen = run(changed)
            if isinstance(seen, Accepted) and _same_structure(base, tuple(leaves(seen.result))):
                found[names] = (sizes, tuple(leaves(seen.result)))
    return found


def _input_dims(start: Start, groups: list[_Group]) -> dict[Path, Shape]:
    by_axis = {axis: group.conclusion() for group in groups for axis in group.axes}
    found = dict[Path, Shape]()
    for path, spec in call_leaves(start.call):
        plain = tuple(by_axis.get((path, axis), Fixed(size)) for axis, size in enumerate(spec.sizes))
        found[path] = start.stated.get(path, plain)
    return found


def _output_port(number: int, seen: _Seen, groups: list[_Group]) -> Port:
    base = seen.base
    path, spec = base[number]
    if not all(_same_structure(base, found) for group in groups for found in group.accepted.values()):
        dims: Shape = tuple(Unknown("the structure of the result changes with the input") for _ in spec.sizes)
    else:
        dims = tuple(_output_dim(number, axis, size, groups, seen) for axis, size in enumerate(spec.sizes))
    return Port(output_name(path), path, spec.dtype, dims)


def _moving(number: int, axis: int, groups: list[_Group]) -> list[_Group]:
    return [group for group in groups if len(set(_column(group, number, axis).values())) > 1]


def _output_dim(number: int, axis: int, size: int, groups: list[_Group], seen: _Seen) -> Dim:
    moving = _moving(number, axis, groups)
    if not moving:
        return Fixed(size)
    unsettled = [group.name for group in moving if not isinstance(group.conclusion(), Free)]
    if unsettled:
        return Unknown(f"changes with {', '.join(unsettled)}")
    if len(moving) > 1:
        return _joint_dim(number, axis, moving, seen)
    rules = candidates(_column(moving[0], number, axis))
    if len(rules) != 1:
        return Unknown(f"changes with {moving[0].name}, by no single rule found")
    expr = rules[0].expr(moving[0].name)
    return moving[0].conclusion() if expr == Symbol(moving[0].name) else as_dim(expr)


def _joint_dim(number: int, axis: int, moving: list[_Group], seen: _Seen) -> Dim:
    names = " and ".join(group.name for group in moving)
    parts = dict[str, Expr]()
    for group in moving:
        rules = candidates(_column(group, number, axis))
        if len(rules) == 1:
            parts[group.name] = rules[0].expr(group.name)
    found = seen.moved.get(frozenset(group.name for group in moving))
    if found is None or len(parts) < len(moving):
        return Unknown(f"changes with {names}, by no rule found")
    sizes, moved = found
    at_base = {group.name: group.base for group in moving}
    expr = jointly(parts, Moved(at_base, seen.base[number][1].sizes[axis]), Moved(sizes, moved[number][1].sizes[axis]))
    return Unknown(f"changes with {names}, by no rule found") if expr is None else as_dim(expr)


def _notes(groups: list[_Group]) -> Iterator[str]:
    for group in groups:
        if len(group.accepted) > 1:
            refused = f", refused {_listed(group.refused)}" if group.refused else ""
            yield f"{group.name} took {_listed(list(group.accepted))}{refused}"


def larger_batch(contract: Contract, call: Call) -> Call | None:
    """The call with one more along axis 0 of every input; None where axis 0 is not free under one name."""
    ports = [port for port in contract.inputs if port.dims != ()]
    firsts = [Free("N") if port.dims is None else port.dims[0] for port in ports]
    specs = dict(call_leaves(call))
    sizes = {specs[port.path].sizes[0] for port in ports}
    if not firsts or len(sizes) != 1 or any(dim != firsts[0] for dim in firsts):
        return None
    size = sizes.pop() + 1
    if not isinstance(firsts[0], Free) or not admits(firsts[0], size):
        return None
    return resized(call, tuple((port.path, 0) for port in ports), size)
