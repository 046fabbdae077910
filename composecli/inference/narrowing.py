"""Narrow the free dims of a contract to the sizes at which what follows the model works, too.

A chain of models is a model whose input has the contract of the first one. Its free dims are varied
within their ranges, by the same rules as those of a single model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from composecli.core.contract import Contract
from composecli.core.dims import Free, as_free, fixed_size
from composecli.core.pytree import Axis, Call, Tree
from composecli.core.resizing import free_axes
from composecli.inference.axis_groups import AxisGroup, Example, make_group
from composecli.inference.bounds import explain_holes, find_bounds
from composecli.inference.grouping import changes_size
from composecli.inference.prober import Probe

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The sizes of each symbol that work, by name, beside those of the example.

    Symbols that are `equal` only change together. `undecided` are the reasons why the sizes of
    others are not known.
    """

    dims: Mapping[str, Free]
    equal: tuple[Names, ...] = ()
    undecided: tuple[str, ...] = ()


def narrow(contract: Contract, example: Example, probe: Probe) -> Narrowed:
    """Return the sizes of the free dims of a contract at which `probe` accepts the call.

    Two convolutions of stride 2 before a `Flatten` and a `Linear(1024, 10)` took
    `float32[2, 3, 32, 32]`. The sizes of `H` that are accepted beside `W = 32` are 29 to 32, and
    likewise those of `W`; every `N` is.
    """
    groups = list(_groups(contract, example))
    stuck = [group for group in groups if not changes_size(example.call, group, probe)]
    tied = list(_tied(example, stuck, probe))
    for group in (*groups, *tied):
        similar = next((other for other in groups if _are_alike(other, group)), None)
        find_bounds(example, group, probe, similar)
        explain_holes(example, group, probe)
    return _conclude(groups, tied)


def _groups(contract: Contract, example: Example) -> Iterator[AxisGroup]:
    """Yield the axes of each symbol as a group, but for those that only change together."""
    related = frozenset[str]().union(*(relation.symbols for relation in contract.where))
    axes_by_name = dict[str, list[Axis]]()
    for axis, dim in free_axes(contract, example.call):
        if dim.name in related:
            continue
        axes_by_name.setdefault(dim.name, []).append(axis)
    for name, axes in axes_by_name.items():
        group = make_group(example, tuple(axes))
        group.assign_name(name)
        yield group


def _tied(example: Example, stuck: list[AxisGroup], probe: Probe) -> Iterator[AxisGroup]:
    """Yield pairs of symbols of one size that only change together: both sides of a square."""
    for one, other in combinations(stuck, 2):
        if one.base != other.base or one.is_batch:
            continue
        pair = make_group(example, (*one.axes, *other.axes))
        pair.assign_name(f"{one.name} {other.name}")
        if changes_size(example.call, pair, probe):
            yield pair
            return


def _are_alike(one: AxisGroup, other: AxisGroup) -> bool:
    """Return whether a group that was explored probably has the same ends as another one."""
    if one is other or one.is_batch or other.is_batch:
        return False
    return one.base == other.base and len(one.accepted) > 1


def _conclude(groups: list[AxisGroup], tied: list[AxisGroup]) -> Narrowed:
    """Return the sizes of each symbol that follow from those that were tried."""
    dims = dict[str, Free]()
    undecided = list[str]()
    equal = [tuple(pair.name.split()) for pair in tied]
    tied_names = {name for names in equal for name in names}
    for group in (*groups, *tied):
        names = group.name.split()
        if len(names) == 1 and group.name in tied_names:
            continue
        dim = group.dim()
        free, size = as_free(dim), fixed_size(dim)
        for name in names:
            if size is not None:
                dims[name] = Free(name, size, size)
            elif free is not None:
                dims[name] = Free(name, free.low, free.high, free.step, free.residues)
            else:
                undecided.append(f"{name}: {_reason(group)}")
    return Narrowed(dims, tuple(equal), tuple(undecided))


def _reason(group: AxisGroup) -> str:
    """Return the sizes that a symbol took and that it did not."""
    taken = ", ".join(map(str, sorted(group.accepted)))
    refused = ", ".join(map(str, sorted(group.rejected)))
    if not refused:
        return f"took {taken}"
    return f"took {taken}; refused {refused}"


def example_of(call: Call, result: Tree, limits: tuple[int, ...], cost: float) -> Example:
    """Return the example of a chain, from which its free dims are varied."""
    return Example(call, result, frozenset(), {}, limits, cost)
