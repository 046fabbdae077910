"""Ids that an op looks up in a table: the ones that have no row there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._C import _DisableTorchDispatch
from torch._ops import OpOverload

from composecli.core.observations import Lookup
from composecli.runtime.op_mode import op_name
from composecli.runtime.tensors import Values, tensors_in

# The position of the ids among the arguments; the axis of the rows is 0, or the argument before.
_ROW_OPS = {"embedding": 1, "_embedding_bag": 1, "_embedding_bag_forward_only": 1}
_AXIS_OPS = {"index_select": 2, "gather": 2}
_LAST_AXIS_OPS = frozenset(("topk", "sort", "argsort"))
_POSITION_OPS = _LAST_AXIS_OPS | {"argmax", "argmin", "max", "min"}
_COPIES = frozenset(("clone", "_to_copy", "contiguous"))


def failed_lookup(func: OpOverload, args: Sequence[Any]) -> Lookup | None:
    """Return what an op looked up; None if every id has a row, or it looks up none."""
    with _DisableTorchDispatch():
        for rows, ids in _lookups(op_name(func), args):
            if ids.is_meta or not ids.numel() or ids.is_floating_point():
                continue
            lookup = Lookup(rows, int(ids.min()), int(ids.max()))
            if lookup.fails:
                return lookup
    return None


def _lookups(name: str, args: Sequence[Any]) -> Iterator[tuple[int, Tensor]]:
    """Yield the number of rows of each table, with the ids that are looked up there."""
    if name in _ROW_OPS:
        yield args[0].shape[0], args[_ROW_OPS[name]]
    if name in _AXIS_OPS and args[0].dim():
        yield args[0].shape[args[1]], args[_AXIS_OPS[name]]
    if name == "index":
        for axis, ids in enumerate(args[1]):
            if ids is not None and ids.element_size() > 1:
                yield args[0].shape[axis], ids


def set_bound(func: OpOverload, args: Sequence[Any], outputs: Sequence[Tensor]) -> None:
    """Note below what number the results of an op are: they are positions along an axis.

    A copy has the bound of the original.
    """
    name = op_name(func)
    if not args or not isinstance(args[0], Tensor):
        return
    bound: int | None = None
    if name in _POSITION_OPS:
        bound = _positions(func, args)
    elif name in _COPIES:
        bound = bound_of(args[0])
    if bound is None:
        return
    for output in outputs:
        if not output.is_floating_point() and output.element_size() > 1:
            storage: Any = output.untyped_storage()
            storage._composecli_bound = bound


def bound_of(tensor: Tensor) -> int | None:
    """Return the number below which the elements of a tensor are; None if that is not known."""
    if tensor.layout is not torch.strided or tensor.is_floating_point():
        return None
    bound: int | None = getattr(tensor.untyped_storage(), "_composecli_bound", None)
    return bound


def _positions(func: OpOverload, args: Sequence[Any]) -> int | None:
    """Return how many positions there are along the axis of an op; None if it has no axis."""
    own: Tensor = args[0]
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.name == "dim" and isinstance(value, int) and own.dim():
            return int(own.shape[value])
    if op_name(func) in _LAST_AXIS_OPS and own.dim():
        return int(own.shape[-1])
    return int(own.numel())


def with_origin(lookup: Lookup | None, values: Values) -> Lookup | None:
    """Return the lookup, with whether the id without a row is among the values of a call."""
    if lookup is None:
        return None
    for tensor in tensors_in(values.flat()):
        if tensor.is_floating_point() or tensor.is_complex() or tensor.is_meta:
            continue
        if bool((tensor == lookup.witness).any()):
            return replace(lookup, is_given=True)
    return lookup
