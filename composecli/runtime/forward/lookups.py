"""Ids that an op looks up in a table: the ones that have no row there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch._C import _DisableTorchDispatch
from torch._ops import OpOverload

from composecli.core.observations import Lookup
from composecli.runtime.op_mode import op_name
from composecli.runtime.tensors import Values, tensors_in

# The position of the ids among the arguments; the axis of the rows is 0, or the argument before.
_ROW_OPS = {"embedding": 1, "_embedding_bag": 1, "_embedding_bag_forward_only": 1}
_AXIS_OPS = {"index_select": 2, "gather": 2}


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
