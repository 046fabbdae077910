"""Bounds of integers that are positions along an axis: those of `argmax` over 10 are below 10.

The bound is kept at the storage, so that a view has the bound of the tensor that it shows, and a
write through any view ends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from composecli.runtime.forward.mark_rules import bind
from composecli.runtime.op_mode import op_name

# Which result of an op has positions along its `dim`. Another result has values of its argument.
_POSITION_RESULTS = {
    "argmax": 0, "argmin": 0, "argsort": 0, "topk": 1, "sort": 1, "max": 1, "min": 1,
    "kthvalue": 1, "mode": 1, "median": 1, "nanmedian": 1, "cummax": 1, "cummin": 1,
}  # fmt: skip
_COPIES = frozenset(("clone", "_to_copy", "contiguous"))


def set_bounds(
    func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], outputs: Sequence[Tensor]
) -> None:
    """Note the bounds of the results of an op, and forget those of the tensors that it wrote to."""
    arguments = bind(func, args, kwargs)
    written = _written(func, arguments)
    for tensor in written:
        _set(tensor, None)
    own = arguments.get("self")
    if written or not isinstance(own, Tensor):
        return
    name = op_name(func)
    if name in _COPIES:
        _set(outputs[0], bound_of(own))
    elif name in _POSITION_RESULTS and "other" not in arguments:
        positions = _positions(own, arguments)
        for number, output in enumerate(outputs):
            if number == _POSITION_RESULTS[name]:
                _set(output, positions)
            else:
                _set(output, bound_of(own))


def bound_of(tensor: Tensor) -> int | None:
    """Return the number below which the elements of a tensor are; None if that is not known."""
    if not _may_hold_ids(tensor):
        return None
    bound: int | None = getattr(tensor.untyped_storage(), "_composecli_bound", None)
    return bound


def _set(tensor: Tensor, bound: int | None) -> None:
    """Set the bound of what may hold ids."""
    if _may_hold_ids(tensor) and bound != bound_of(tensor):
        storage: Any = tensor.untyped_storage()
        storage._composecli_bound = bound


def _may_hold_ids(tensor: Tensor) -> bool:
    """Return whether a tensor has integers in memory of its own."""
    if tensor.layout is not torch.strided or tensor.is_floating_point():
        return False
    return int(tensor.element_size()) > 1


def _written(func: OpOverload, arguments: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors among the arguments that an op writes to."""
    written = list[Tensor]()
    for argument in func._schema.arguments:
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = arguments[argument.name]
        if isinstance(value, Tensor):
            written.append(value)
        elif isinstance(value, list | tuple):
            written += value
    return written


def _positions(own: Tensor, arguments: Mapping[str, Any]) -> int:
    """Return how many positions there are along the axis of an op, or in all without one."""
    axis = arguments.get("dim")
    if isinstance(axis, int) and own.dim():
        return int(own.shape[axis])
    return int(own.numel())
