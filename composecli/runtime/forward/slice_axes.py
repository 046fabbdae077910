"""Comparing marks with slices: on which axes of a tensor exactly the marked slices have marks."""

from __future__ import annotations

import torch
from torch import Tensor


def kept_axes(marks: Tensor, marked: Tensor) -> tuple[int, ...]:
    """Return the axes on which the slices with marks are exactly the marked ones."""
    axes = list[int]()
    for axis in axes_of_size(marks, len(marked)):
        if torch.equal(_project(marks, axis), marked.to(marks.device)):
            axes.append(axis)
    return tuple(axes)


def axes_of_size(tensor: Tensor, size: int) -> list[int]:
    """Return the axes of a tensor that have this size."""
    return [axis for axis, own in enumerate(tensor.shape) if own == size]


def changes_slice(one: Tensor, other: Tensor, size: int, number: int) -> bool:
    """Return whether two results differ in this slice on every axis with so many slices.

    If there is no such axis, it is enough that they differ.
    """
    if one.shape != other.shape:
        return False
    same = one == other
    if one.is_floating_point() or one.is_complex():
        same |= one.isnan() & other.isnan()
    different = ~same
    if not bool(different.any()):
        return False
    axes = axes_of_size(one, size)
    return all(bool(_project(different, axis)[number]) for axis in axes)


def _project(marks: Tensor, axis: int) -> Tensor:
    """Return for each slice of an axis whether it has a mark."""
    return marks.movedim(axis, 0).reshape(marks.shape[axis], -1).any(1)
