"""Products with weights that were not read: only the marks of a result, without its arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from composecli.runtime.tensors import storage_of
from composecli.runtime.weights.meta_kernels import KERNELS, Kernel, Result

_aten = torch.ops.aten


class MarkingKernels:
    """Kernels that run instead of the real ones of products, which are expensive.

    `weights` identifies the storages of weights, which have no marks and are too large to look.
    """

    def __init__(self, weights: frozenset[int]) -> None:
        self._weights = weights

    @property
    def by_op(self) -> Mapping[OpOverload, Kernel]:
        """The kernel of each op. The other ops run on zeros, which is cheap."""
        return {
            _aten.mm.default: self._mm,
            _aten.addmm.default: self._addmm,
            _aten.bmm.default: self._bmm,
            _aten.baddbmm.default: self._baddbmm,
            _aten.convolution.default: self._convolution,
        }

    def _mm(self, one: Tensor, other: Tensor) -> Result:
        """Mark the rows and the columns with a marked factor."""
        result = KERNELS[_aten.mm.default](one, other)
        return self._product(result, one, other)

    def _addmm(self, bias: Tensor, one: Tensor, other: Tensor, **factors: Any) -> Result:
        """Mark the rows and the columns with a marked factor, and the places of a marked bias."""
        result = KERNELS[_aten.addmm.default](bias, one, other, **factors)
        return self._product(result, one, other, bias)

    def _bmm(self, one: Tensor, other: Tensor) -> Result:
        """Mark the rows and the columns of each matrix with a marked factor."""
        result = KERNELS[_aten.bmm.default](one, other)
        return self._product(result, one, other)

    def _baddbmm(self, bias: Tensor, one: Tensor, other: Tensor, **factors: Any) -> Result:
        """Mark the rows and the columns with a marked factor, and the places of a marked bias."""
        result = KERNELS[_aten.baddbmm.default](bias, one, other, **factors)
        return self._product(result, one, other, bias)

    def _convolution(
        self, value: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any
    ) -> Result:
        """Mark the elements that a kernel of one channel a group reaches from a marked channel."""
        result = KERNELS[_aten.convolution.default](value, weight, bias, *settings)
        if not isinstance(result, Tensor):
            return None
        groups: int = settings[-1]
        sizes = (value.shape[0], groups, -1, *value.shape[2:])
        summed = value.reshape(sizes).sum(2)
        kernel = weight.new_zeros((groups, 1, *weight.shape[2:]))
        reached = _aten.convolution.default(summed, kernel, None, *settings).isnan()
        per_group = result.shape[1] // groups
        return _marked(result.zero_(), reached.repeat_interleave(per_group, 1))

    def _product(
        self, result: Result, one: Tensor, other: Tensor, bias: Tensor | None = None
    ) -> Result:
        """Return a product of matrices, or of several, with the marks of its factors."""
        if not isinstance(result, Tensor):
            return None
        result.zero_()
        if self._may_be_marked(one):
            _marked(result, one.isnan().any(-1, keepdim=True))
        if self._may_be_marked(other):
            _marked(result, other.isnan().any(-2, keepdim=True))
        if bias is not None and self._may_be_marked(bias):
            _marked(result, bias.isnan())
        return result

    def _may_be_marked(self, tensor: Tensor) -> bool:
        """Return whether a tensor is not a weight."""
        return storage_of(tensor) not in self._weights


def _marked(result: Tensor, marks: Tensor) -> Tensor:
    """Return a result with these marks in it."""
    return result.masked_fill_(marks, float("nan"))
