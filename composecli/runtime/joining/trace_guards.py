"""Guards in a trace: what Python code turns into a number is built in, so the file checks it.

A trace follows the sizes of its inputs as tensors until the code needs a number: in `len(x)`,
`range(x.size(0))`, `if x.shape[0] > 3` or a loop over a tensor. That number is a constant from then
on. A guard is a step of the trace itself: it refuses an input for which the number is another one.
"""

from __future__ import annotations

import functools
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CONVERSIONS = (
    Tensor.__int__,
    Tensor.__index__,
    Tensor.__float__,
    Tensor.__bool__,
    Tensor.__array__,
    Tensor.item,
    Tensor.tolist,
    Tensor.numpy,
)
_UNBIND = (Tensor.unbind, torch.unbind)
_SPLIT = (Tensor.split, torch.split)
_SHAPES = (Tensor.shape.__get__, Tensor.size)
_LIBRARY = str(Path(torch.__file__).parent)
_OWN = str(Path(__file__).parent.parent.parent)
# The place of what an exported program checks itself.
_EXPORTED = str(Path(_OWN, "runtime", "pt2", "guards.py"))
_TENSOR_METHODS = str(Path(_LIBRARY, "_tensor.py"))
_SIZE, _VALUE = "a size", "a value"


class Guarding(TorchFunctionMode):  # type: ignore[misc]
    """Adds a guard to the trace for each size and value that becomes a number.

    `fix_sizes` makes every size a number that the code reads, for code that cannot do with tensors
    in their place. Floating point values are not guarded: they differ from input to input.
    """

    def __init__(self, *, fix_sizes: bool = False) -> None:
        super().__init__()
        self._fix_sizes = fix_sizes
        self._sources = _Sources()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        if not torch.jit.is_tracing():
            return func(*args, **keywords)
        if func in _UNBIND:
            _guard_slices(*args, **keywords)
        elif func in _SPLIT:
            _guard_pieces(*args, **keywords)
        try:
            result = func(*args, **keywords)
        except Exception:
            # The code may go on without the op.
            _guard_sizes((*args, *keywords.values()), self._sources)
            raise
        if func in _CONVERSIONS:
            _guard_number(args[0], self._sources)
        elif self._fix_sizes and func in _SHAPES:
            return _fixed(result, self._sources)
        return result


def _fixed(sizes: Any, sources: _Sources) -> Any:
    """Return a size, or all sizes of a tensor, as numbers."""
    if isinstance(sizes, Tensor):
        return _fixed_size(sizes, sources)
    return torch.Size(_fixed_size(size, sources) for size in sizes)


def _fixed_size(size: Any, sources: _Sources) -> int:
    """Return a size as a number, with a guard if it may be another one."""
    if isinstance(size, Tensor):
        _guard_number(size, sources)
    return int(size)


def _guard_sizes(arguments: tuple[Any, ...], sources: _Sources) -> None:
    """Add guards that the tensors among the arguments of a refused op have their sizes."""
    for value in arguments:
        if isinstance(value, list | tuple):
            _guard_sizes(tuple(value), sources)
        elif isinstance(value, Tensor):
            for axis in range(value.dim()):
                size: Any = value.size(axis)
                if isinstance(size, Tensor) and sources.of(size) is not None:
                    text = f"{_place()} catches an error at the size {int(size)}, and at no other"
                    _number_guard()(size, int(size), text)


def _guard_number(tensor: Tensor, sources: _Sources) -> None:
    """Add a guard that a tensor of one integer has its value, if that follows from the input."""
    if tensor.is_floating_point() or tensor.is_complex() or tensor.numel() != 1:
        return
    source = sources.of(tensor)
    if source is None:
        return
    number = int(tensor)
    place = _place()
    text = f"{place} turns {source} into the number {number}, which is fixed in the file"
    if place == _EXPORTED:
        text = "the torch.export archive takes no such sizes"
    elif tensor.dtype is torch.bool:
        text = f"{place} takes one branch by {source}, and the other branch is not in the file"
    _number_guard()(tensor, number, text)


def _guard_slices(input: Tensor, dim: int = 0) -> None:
    """Add a guard that a tensor is taken apart into as many slices; the names are torch's."""
    _guard_count(input, 1, dim)


def _guard_pieces(tensor: Tensor, *sizes: Any, dim: int = 0, **named: Any) -> None:
    """Add a guard that a tensor is split into as many pieces, if these are of one size."""
    size, *others = *sizes, *named.values()
    if isinstance(size, int):
        _guard_count(tensor, size, next(iter(others), dim))


def _guard_count(tensor: Tensor, size: int, axis: int) -> None:
    """Add a guard that an axis has as many pieces of a size."""
    if size < 1 or not -tensor.dim() <= axis < tensor.dim():
        return
    count = math.ceil(int(tensor.size(axis)) / size)
    text = f"{_place()} takes a tensor apart into {count}, and the file holds for no other number"
    _count_guard()(tensor, axis, size, count, text)


class _Sources:
    """The part of the input that each value of one trace follows from, by the value's id.

    It is a size, or a value, which counts if there are both; None if the input has no part in it.
    """

    def __init__(self) -> None:
        self._known = dict[int, str | None]()

    def of(self, tensor: Tensor) -> str | None:
        """Return the source of a tensor. That of each value is found only once."""
        first = torch._C._get_value_trace(tensor)
        pending = [first]
        while pending:
            node = pending[-1].node()
            missing = [value for value in _inputs(node) if value.unique() not in self._known]
            if missing:
                pending += missing
            else:
                self._known[pending.pop().unique()] = self._follow(node)
        return self._known[first.unique()]

    def _follow(self, node: Any) -> str | None:
        """Return the source of a node's results, from those of its inputs."""
        if node.kind() == "prim::Param":
            return _VALUE
        sources = {self._known[value.unique()] for value in _inputs(node)}
        if node.kind() == "aten::size" and sources != {None}:
            return _SIZE
        return next((source for source in (_VALUE, _SIZE) if source in sources), None)


def _inputs(node: Any) -> Iterator[Any]:
    """Yield the values that a node takes, without the module itself."""
    for value in node.inputs():
        if value.type().kind() != "ClassType":
            yield value


def _place() -> str:
    """Return the file and the line of the code that is being traced, below all of torch."""
    in_library = ""
    for frame, line in traceback.walk_stack(sys._getframe()):
        file = frame.f_code.co_filename
        if file == _EXPORTED:
            return _EXPORTED
        place = f"{Path(file).name}:{line}"
        if not file.startswith((_LIBRARY, _OWN)):
            return place
        is_layer = file.startswith(_LIBRARY) and file != _TENSOR_METHODS
        if is_layer and not in_library:
            in_library = place
    return in_library or "its code"


# Scripted functions, because a trace keeps their branches. What they return is not used.


def _check_number(actual: Tensor, traced: int, text: str) -> Tensor:
    assert int(actual) == traced, text
    return actual


def _check_count(actual: Tensor, axis: int, size: int, traced: int, text: str) -> Tensor:
    assert (actual.size(axis) + size - 1) // size == traced, text
    return actual


@functools.cache
def _number_guard() -> Callable[..., Any]:
    """Return the guard of a number."""
    return torch.jit.script(_check_number)  # type: ignore[no-any-return]


@functools.cache
def _count_guard() -> Callable[..., Any]:
    """Return the guard of a count of slices."""
    return torch.jit.script(_check_count)  # type: ignore[no-any-return]
