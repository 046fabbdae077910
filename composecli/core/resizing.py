"""Calls of a model at other sizes of its symbols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from composecli.core.contract import BATCH, Contract
from composecli.core.dims import Dim, Fixed, Free, as_expr, as_free
from composecli.core.pytree import Axis, Call, call_leaves, resized, size_of
from composecli.core.size_expr import evaluate, symbols


def free_axes(contract: Contract, call: Call) -> list[tuple[Axis, Free]]:
    """Return the free axes of the tensors in the call. A port of any rank has a free batch."""
    axes = list[tuple[Axis, Free]]()
    for axis, dim in _axes(contract, call):
        free = as_free(dim)
        if free is not None:
            axes.append((axis, free))
    return axes


def axes_named(contract: Contract, call: Call, name: str) -> tuple[Axis, ...]:
    """Return the free axes of the tensors in the call that have this name."""
    return tuple(axis for axis, free in free_axes(contract, call) if free.name == name)


def free_dims_of(contract: Contract, call: Call) -> tuple[Free, ...]:
    """Return the free dims of the tensors in the call, in the order of `free_axes`."""
    return tuple(free for _, free in free_axes(contract, call))


def ranges_by_name(contract: Contract, call: Call) -> dict[str, Free]:
    """Return the free dim of each symbol of the call, by name."""
    return {free.name: free for free in free_dims_of(contract, call)}


def _axes(contract: Contract, call: Call) -> Iterator[tuple[Axis, Dim]]:
    """Yield each axis of the tensors in the call with its dim."""
    specs = dict(call_leaves(call))
    for port in contract.required:
        if port.path not in specs:
            continue
        dims, rank = port.dims, len(specs[port.path].sizes)
        if dims is not None and len(dims) != rank:
            continue
        if dims is None:
            _, *others = map(Fixed, (1, *specs[port.path].sizes[1:]))
            dims = (Free(BATCH), *others)
        for axis in range(rank):
            yield (port.path, axis), dims[axis]


def sizes_by_name(contract: Contract, call: Call) -> dict[str, int]:
    """Return the size of each symbol in the call: that of its first axis."""
    sizes = dict[str, int]()
    for axis, free in free_axes(contract, call):
        sizes.setdefault(free.name, size_of(call, axis))
    return sizes


def resize(contract: Contract, call: Call, changed: Mapping[str, int]) -> Call:
    """Return the call with these sizes of its symbols.

    With `T=6`, `float32[2, 5, 16]` and `float32[2, 10]` for `(N, T, 16)` and `(N, 2*T)` become
    `float32[2, 6, 16]` and `float32[2, 12]`.
    """
    sizes = {**sizes_by_name(contract, call), **changed}
    for axis, dim in _axes(contract, call):
        expr = as_expr(dim)
        if expr is None:
            continue
        names = symbols(expr)
        if names & changed.keys() and names <= sizes.keys():
            call = resized(call, (axis,), evaluate(expr, sizes))
    return call
