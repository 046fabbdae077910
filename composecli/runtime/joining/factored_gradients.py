"""Gradients of large matrices in factored form.

The gradient of a weight of shape `(out, in)` is the product of two much smaller matrices: the
incoming gradients `(out, batch)` and the layer's inputs `(batch, in)`. Two such gradients are
compared by checksums of their factors, so that the product is never computed.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from composecli.runtime.op_mode import OpMode
from composecli.runtime.tensors import tensors_in

# A product with fewer elements is computed.
MIN_FACTORED_ELEMENTS = 2**16
# A product is left in factored form only if it has this many times the elements of its factors.
_MIN_EXPANSION = 8

Checksums = tuple[int, int]

_ATTRIBUTE = "_composecli_factors"
_aten = torch.ops.aten
# These ops return the same numbers in another order: their result shares the marked storage.
_VIEWS = (
    _aten.t.default,
    _aten.transpose.int,
    _aten.detach.default,
    _aten.view.default,
    _aten.alias.default,
)
_COPIES = (_aten.clone.default,)


class ProductUsed(Exception):
    """An op needs the values of a product that was not computed, so it is more than a gradient."""


class _FactoredProducts(OpMode):
    """Replaces large matrix products by empty tensors whose storage is marked with the factors."""

    def __init__(self, shapes: Collection[tuple[int, ...]]) -> None:
        super().__init__()
        transposed = {tuple(reversed(shape)) for shape in shapes}
        self.shapes = transposed | set(shapes)
        self.product_used = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an op, unless it makes a large product, copies one, or needs its values."""
        if func is _aten.mm.default and self._is_large_product(*args):
            one, other = args
            sizes = (one.shape[0], other.shape[1])
            result = one.new_empty(sizes)
            _mark(result, (crc(one), crc(other)))
            return result
        marked = list[Checksums]()
        for tensor in tensors_in([*args]):
            factors = factors_of(tensor)
            if factors is not None:
                marked.append(factors)
        if not marked or func in _VIEWS:
            return func(*args, **(kwargs or {}))
        if func in _COPIES:
            result = torch.empty_like(args[0])
            _mark(result, marked[0])
            return result
        self.product_used = True
        raise ProductUsed

    def _is_large_product(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether the product has the shape of a parameter, and is much larger than its factors."""
        rows, columns = one.shape[0], other.shape[1]
        held = one.numel() + other.numel()
        minimum = max(MIN_FACTORED_ELEMENTS, _MIN_EXPANSION * held)
        is_large = rows * columns > minimum
        return is_large and (rows, columns) in self.shapes


def _mark(tensor: torch.Tensor, factors: Checksums) -> None:
    """Note the checksums of the factors on the storage, where views of the tensor find them."""
    setattr(tensor.untyped_storage(), _ATTRIBUTE, factors)


def factors_of(tensor: torch.Tensor) -> Checksums | None:
    """Return the checksums of the factors of a product that was not computed, else None."""
    if tensor.layout is not torch.strided:
        return None
    factors: Checksums | None = getattr(tensor.untyped_storage(), _ATTRIBUTE, None)
    return factors


@contextmanager
def factored_gradients(shapes: Collection[tuple[int, ...]]) -> Iterator[None]:
    """Leave large products in factored form inside the block, if they have one of these shapes.

    Raises:
        ProductUsed: if an op needs the values of one.
    """
    mode = _FactoredProducts(shapes)
    try:
        with mode:
            yield
    finally:
        # Whatever the backward pass raised because of it.
        if mode.product_used:
            raise ProductUsed from None


def crc(tensor: torch.Tensor) -> int:
    """Return the CRC-32 of the tensor's values in row-major order."""
    values = tensor.detach().cpu().contiguous()
    data = values.view(-1).view(torch.uint8)
    return zlib.crc32(data.numpy())
