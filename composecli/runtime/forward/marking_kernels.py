"""Products with weights that were not read: only the marks of a result, without its arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from composecli.runtime.weights.meta_kernels import KERNELS, Kernel, Result

_aten = torch.ops.aten


def _mm(one: Tensor, other: Tensor) -> Result:
    """Mark the rows and the columns with a marked factor."""
    result = KERNELS[_aten.mm.default](one, other)
    return _marked(result, _product_marks(one, other))


def _addmm(bias: Tensor, one: Tensor, other: Tensor, **factors: Any) -> Result:
    """Mark the rows and the columns with a marked factor, and the places of a marked bias."""
    result = KERNELS[_aten.addmm.default](bias, one, other, **factors)
    if result is None:
        return None
    return _marked(result, _product_marks(one, other) | bias.isnan())


def _bmm(one: Tensor, other: Tensor) -> Result:
    """Mark the rows and the columns of each matrix with a marked factor."""
    result = KERNELS[_aten.bmm.default](one, other)
    return _marked(result, _product_marks(one, other))


def _baddbmm(bias: Tensor, one: Tensor, other: Tensor, **factors: Any) -> Result:
    """Mark the rows and the columns with a marked factor, and the places of a marked bias."""
    result = KERNELS[_aten.baddbmm.default](bias, one, other, **factors)
    if result is None:
        return None
    return _marked(result, _product_marks(one, other) | bias.isnan())


def _convolution(value: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Result:
    """Mark what a kernel of one channel in each group reaches from a marked channel."""
    result = KERNELS[_aten.convolution.default](value, weight, bias, *settings)
    if not isinstance(result, Tensor) or value.dim() != weight.dim():
        return None
    groups: int = settings[-1]
    sizes = (value.shape[0], groups, -1, *value.shape[2:])
    summed = value.reshape(sizes).sum(2)
    kernel = weight.new_zeros((groups, 1, *weight.shape[2:]))
    reached = _aten.convolution.default(summed, kernel, None, *settings).isnan()
    per_group = result.shape[1] // groups
    return _marked(result, reached.repeat_interleave(per_group, 1))


def _product_marks(one: Tensor, other: Tensor) -> Tensor:
    """Return the marks of a product of matrices, or of several, from those of its factors."""
    return one.isnan().any(-1, keepdim=True) | other.isnan().any(-2, keepdim=True)


def _marked(result: Result, marks: Tensor) -> Result:
    """Return a result with zeros and these marks; None if the real kernel is needed."""
    if not isinstance(result, Tensor):
        return None
    return result.zero_().masked_fill_(marks, float("nan"))


# The other ops run on zeros: they are cheap.
MARKING_KERNELS: Mapping[OpOverload, Kernel] = {
    _aten.mm.default: _mm,
    _aten.addmm.default: _addmm,
    _aten.bmm.default: _bmm,
    _aten.baddbmm.default: _baddbmm,
    _aten.convolution.default: _convolution,
}
