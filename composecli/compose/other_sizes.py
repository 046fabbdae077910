"""Calls at other sizes, at which a joined file is compared with its separate models."""

from __future__ import annotations

from collections.abc import Iterable

from composecli.core.contract import Contract
from composecli.core.dims import example_size, sizes_between
from composecli.core.pytree import Call, size_of
from composecli.core.relations import all_hold
from composecli.core.resizing import free_axes, resize, sizes_by_name


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
