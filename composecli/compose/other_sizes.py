"""Calls at other sizes, at which a joined file is compared with its separate models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from composecli.core.contract import Contract
from composecli.core.dims import example_size, sizes_between
from composecli.core.pytree import Call, size_of
from composecli.core.relations import all_hold
from composecli.core.resizing import free_axes, resize, sizes_by_name

# A far size is this many times that of the example.
FAR = 8
MAX_ELEMENTS = 2**20
MAX_NAMES = 4


def free_names(contract: Contract, call: Call) -> tuple[str, ...]:
    """Return the names of the free dims of the call's inputs that admit another size."""
    sizes = _other_sizes(contract, call)
    return tuple(sizes)


def with_other_sizes(contract: Contract, call: Call, names: Iterable[str]) -> Call:
    """Return the call with the next larger size on the axes of these names.

    With `N` and `T` of `(N, T, 16)`, `float32[2, 5, 16]` becomes `float32[3, 6, 16]`. A size at its
    upper limit becomes the next smaller one.
    """
    sizes = _other_sizes(contract, call)
    changed = {name: sizes[name] for name in names}
    return resize(contract, call, changed)


def calls_far_away(contract: Contract, call: Call) -> Iterator[Call]:
    """Yield calls at which a trace of the call may fail: the limits of its free dims, and beyond.

    For `float32[2, 5, 16]` of `(N, T, 16)` they are `float32[1, 1, 16]`, `float32[17, 41, 16]`,
    and those at which one of the dims is changed alone: `float32[3, 5, 16]`, `float32[2, 6, 16]`.
    """
    sizes = {dim.name: (dim, size_of(call, axis)) for axis, dim in free_axes(contract, call)}
    lowest = {name: example_size(dim, dim.low) for name, (dim, _) in sizes.items()}
    far = {name: example_size(dim, FAR * size + 1) for name, (dim, size) in sizes.items()}
    for others in (lowest, far):
        other_call = resize(contract, call, others)
        if all_hold(contract.where, others) and other_call.elements <= MAX_ELEMENTS:
            yield other_call
    names = free_names(contract, call)
    if len(names) > 1:
        for name in names[:MAX_NAMES]:
            yield with_other_sizes(contract, call, (name,))


def _other_sizes(contract: Contract, call: Call) -> dict[str, int]:
    """Return another size for each free dim that admits one, by name.

    A related dim has one only if the relation holds with it and the other sizes of the call.
    """
    other_sizes = dict[str, int]()
    known = sizes_by_name(contract, call)
    for axis, dim in free_axes(contract, call):
        size = size_of(call, axis)
        larger = example_size(dim, size + 1)
        smaller = sizes_between(dim, 1, size - 1)
        others = [other for other in (larger, *smaller[-1:]) if other != size]
        where = [relation for relation in contract.where if dim.name in relation.symbols]
        for other in sorted(others, reverse=True):
            if all_hold(where, {**known, dim.name: other}):
                other_sizes[dim.name] = other
                break
    return other_sizes
