"""Gradients of large matrices by their factors: such a gradient is the product of what came in and what came back, two
small matrices, and is compared by these without being formed."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from composecli.runtime.op_mode import OpMode
from composecli.runtime.tensors import tensors_in

# Elements. A smaller product is formed.
SMALLEST = 2**16
_MARK = "_composecli_factors"
_aten = torch.ops.aten
# Ops that give the same numbers in another order, or in another place.
_SAME = (
    _aten.t.default,
    _aten.transpose.int,
    _aten.detach.default,
    _aten.view.default,
    _aten.alias.default,
)
_COPIES = (_aten.clone.default,)


class ProductUsed(Exception):
    """A product that was not formed is asked for by an op: it is more than a gradient."""


class _Factored(OpMode):
    def __init__(self, shapes: Collection[tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes = {*shapes, *(tuple(reversed(shape)) for shape in shapes)}
        self.consumed = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _aten.mm.default and self._is_left_open(*args):
            result = args[0].new_empty((args[0].shape[0], args[1].shape[1]))
            setattr(result.untyped_storage(), _MARK, (crc(args[0]), crc(args[1])))
            return result
        marks = [mark for tensor in tensors_in([*args]) if (mark := factors_of(tensor)) is not None]
        if not marks or func in _SAME:
            return func(*args, **(kwargs or {}))
        if func in _COPIES:
            result = torch.empty_like(args[0])
            setattr(result.untyped_storage(), _MARK, marks[0])
            return result
        self.consumed = True
        raise ProductUsed

    def _is_left_open(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether it is as large as a parameter, and much larger than what it is made of."""
        elements = one.shape[0] * other.shape[1]
        large = elements > max(SMALLEST, 8 * (one.numel() + other.numel()))
        return large and (one.shape[0], other.shape[1]) in self.shapes


def factors_of(tensor: torch.Tensor) -> tuple[int, int] | None:
    """What stands for the two matrices whose product this would be; None where it is what it is."""
    if tensor.layout is not torch.strided:
        return None
    found: tuple[int, int] | None = getattr(tensor.untyped_storage(), _MARK, None)
    return found


@contextmanager
def factored_gradients(shapes: Collection[tuple[int, ...]]) -> Iterator[None]:
    """While this lasts, products of the shape of one of these large parameters are not formed.

    Raises:
        Consumed: an op asked for the values of one.
    """
    mode = _Factored(shapes)
    try:
        with mode:
            yield
    finally:
        if mode.consumed:
            raise ProductUsed from None


def crc(tensor: torch.Tensor) -> int:
    """The CRC-32 of its values, wherever they lie."""
    return zlib.crc32(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
