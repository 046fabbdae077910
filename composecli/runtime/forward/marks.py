"""Marks: which elements of a tensor depend on the slices that are followed.

A float is marked by NaN, which spreads through arithmetic to all that depends on it, through zeros
too. An integer or a boolean cannot be NaN: its marks lie beside it, with its storage, so that views
of a tensor share them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def holds_nan(tensor: Tensor) -> bool:
    """Return whether the elements of a tensor can be NaN."""
    return bool(tensor.is_floating_point() or tensor.is_complex())


def _is_followed(tensor: Tensor) -> bool:
    """Return whether a tensor has marks at all: it is an ordinary one with elements."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return False
    return not tensor.is_meta and not tensor.is_quantized and tensor.numel() > 0


class Marks:
    """The marks of one forward. Its methods must be called outside of every dispatch mode."""

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return a boolean tensor of the same sizes with the marks; None if there are none."""
        if not _is_followed(tensor):
            return None
        if holds_nan(tensor):
            marks = tensor.isnan()
        else:
            flat = self._flat(tensor)
            if flat is None:
                return None
            marks = _view_like(flat, tensor)
        if not bool(marks.any()):
            return None
        return marks

    def has_beside(self, tensor: Tensor) -> bool:
        """Return whether the storage of an integer or boolean tensor has marks beside it."""
        if not _is_followed(tensor) or holds_nan(tensor):
            return False
        return self._flat(tensor) is not None

    def set(self, tensor: Tensor, marks: Tensor | None) -> None:
        """Mark these elements of a tensor; the other ones of integers are not marked any more."""
        if not _is_followed(tensor):
            return
        if holds_nan(tensor):
            if marks is not None:
                tensor.masked_fill_(marks.expand(tensor.shape), float("nan"))
            return
        flat = self._flat(tensor)
        if flat is None:
            if marks is None:
                return
            flat = self._add_flat(tensor)
        view = _view_like(flat, tensor)
        if marks is None:
            view.zero_()
        else:
            view.copy_(marks.expand(tensor.shape))

    def _flat(self, tensor: Tensor) -> Tensor | None:
        """Return the marks beside the storage of a tensor; None if this forward set none."""
        storage: Any = tensor.untyped_storage()
        owner, flat = getattr(storage, "_composecli_marks", (None, None))
        if owner is not self:
            return None
        marks: Tensor = flat
        return marks

    def _add_flat(self, tensor: Tensor) -> Tensor:
        """Put marks, none of them set, beside the storage of a tensor: one for each byte."""
        storage: Any = tensor.untyped_storage()
        flat = torch.zeros(storage.nbytes(), dtype=torch.bool, device=tensor.device)
        storage._composecli_marks = (self, flat)
        return flat


def _view_like(flat: Tensor, tensor: Tensor) -> Tensor:
    """Return the marks of the first byte of each element of a tensor."""
    width = tensor.element_size()
    strides = [stride * width for stride in tensor.stride()]
    return flat.as_strided(tensor.shape, strides, tensor.storage_offset() * width)
