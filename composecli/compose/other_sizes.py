"""Calls at other sizes, at which a joined file is compared with its separate models."""

from __future__ import annotations

from collections.abc import Iterable

from composecli.core.contract import BATCH, Contract, Port
from composecli.core.dims import Free, as_free, example_size, sizes_between
from composecli.core.pytree import Axis, Call, call_leaves, resized


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
    for name in names:
        axes = tuple(axis for axis, dim in _free_axes(contract, call) if dim.name == name)
        call = resized(call, axes, sizes[name])
    return call


def _free_axes(contract: Contract, call: Call) -> list[tuple[Axis, Free]]:
    """Return the free axes of the tensors in the call. A port of any rank has a free batch."""
    specs = dict(call_leaves(call))
    free_axes = list[tuple[Axis, Free]]()
    for port in contract.required:
        if port.path not in specs:
            continue
        for axis in range(len(specs[port.path].sizes)):
            dim = _free_dim(port, axis)
            if dim is not None:
                free_axes.append(((port.path, axis), dim))
    return free_axes


def _free_dim(port: Port, axis: int) -> Free | None:
    """Return the dim of an axis if it is free."""
    if port.dims is not None:
        return as_free(port.dims[axis])
    if axis == 0:
        return Free(BATCH)
    return None


def _other_sizes(contract: Contract, call: Call) -> dict[str, int]:
    """Return another size for each free dim that admits one, by name."""
    specs = dict(call_leaves(call))
    other_sizes = dict[str, int]()
    for (path, axis), dim in _free_axes(contract, call):
        size = specs[path].sizes[axis]
        other = example_size(dim, size + 1)
        smaller = sizes_between(dim, 1, size - 1)
        if other > size:
            other_sizes[dim.name] = other
        elif smaller:
            other_sizes[dim.name] = smaller[-1]
    return other_sizes
