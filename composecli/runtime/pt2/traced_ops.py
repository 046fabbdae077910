"""Ops of an exported program while it is traced: sizes are tensors then, which a trace follows.

An overload of an op takes its sizes as numbers, and a trace makes them constant. The function of
the same name that torch has for Python takes tensors in their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

# Where torch has its functions for Python.
_OWNERS: tuple[Any, ...] = (torch, Tensor, torch._C._nn, torch._C._fft, torch._C._linalg)
_NUMBERS = ("int", "SymInt", "number", "float", "bool")


def run_traced(target: Callable[..., Any], arguments: list[Any], keywords: dict[str, Any]) -> Any:
    """Return the result of an op or of a function on sizes, in a way that a trace follows."""
    if not isinstance(target, OpOverload):
        return _function_on_sizes(target, arguments)(*arguments, **keywords)
    name = target._schema.name.rpartition("::")[2]
    own = _REPLACEMENTS.get(name)
    if own is not None:
        return own(*arguments, **keywords)
    if not _has_traced_numbers(target, arguments, keywords):
        return target(*arguments, **keywords)
    for owner in _OWNERS:
        function = getattr(owner, name, None)
        if function is not None:
            return function(*arguments, **keywords)
    return target(*arguments, **keywords)


def _has_traced_numbers(
    op: OpOverload, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> bool:
    """Return whether a tensor is in the place of a number, or of one in a list."""
    schema = op._schema.arguments
    named = {argument.name: argument for argument in schema}
    pairs = [*zip(schema, arguments, strict=False)]
    pairs += [(named[name], value) for name, value in keywords.items()]
    return any(_is_number(argument) and _holds_tensor(value) for argument, value in pairs)


def _is_number(argument: Any) -> bool:
    """Return whether an argument of a schema is a number, or a list of numbers."""
    kind = str(argument.type)
    return any(word in kind for word in _NUMBERS)


def _holds_tensor(value: Any) -> bool:
    """Return whether a value is a tensor, or a list with one."""
    if isinstance(value, list | tuple):
        return any(isinstance(item, Tensor) for item in value)
    return isinstance(value, Tensor)


def _slice(
    tensor: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Tensor:
    """Return a slice along an axis."""
    places = [slice(None)] * tensor.dim()
    places[dim] = slice(start, end, step)
    return tensor[tuple(places)]


def _size(tensor: Tensor, dim: int) -> Any:
    return tensor.size(dim)


def _full(sizes: list[Any], value: Any, **options: Any) -> Tensor:
    """Return a tensor of one value, which may follow from a size."""
    if not isinstance(value, Tensor):
        return torch.full(sizes, value, **options)
    if options.get("dtype") is None:
        options["dtype"] = value.dtype
        if value.is_floating_point():
            options["dtype"] = torch.get_default_dtype()
    return torch.zeros(sizes, **options).fill_(value)


_REPLACEMENTS: Mapping[str, Callable[..., Any]] = {
    "sym_size": _size,
    "sym_numel": Tensor.numel,
    "slice": _slice,
    "full": _full,
}


def _function_on_sizes(
    function: Callable[..., Any], arguments: Sequence[Any]
) -> Callable[..., Any]:
    """Return the function on tensors that stands for a function on numbers."""
    if function in _ON_TENSORS and _holds_tensor(arguments):
        return _ON_TENSORS[function]
    return function


def _float(size: Tensor) -> Tensor:
    return size.to(torch.float64)


def _integer(number: Tensor) -> Tensor:
    return number.to(torch.int64)


def _larger(one: Any, other: Any) -> Tensor:
    return torch.maximum(torch.as_tensor(one), torch.as_tensor(other))


def _smaller(one: Any, other: Any) -> Tensor:
    return torch.minimum(torch.as_tensor(one), torch.as_tensor(other))


_ON_TENSORS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    float: _float,
    int: _integer,
    max: _larger,
    min: _smaller,
    torch.sym_float: _float,
    torch.sym_int: _integer,
    torch.sym_max: _larger,
    torch.sym_min: _smaller,
    torch.sym_sqrt: lambda size: _float(size).sqrt(),
    math.sqrt: lambda size: _float(size).sqrt(),
    math.log2: lambda size: _float(size).log2(),
    math.ceil: lambda number: _integer(number.ceil()),
    math.floor: lambda number: _integer(number.floor()),
    math.trunc: lambda number: _integer(number.trunc()),
}
