"""Planning a bridge: the fewest and cheapest steps that make one port accept another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import assert_never

from composecli.core.bridge import (
    Bridge,
    BridgeMode,
    Cast,
    Flatten,
    Linear,
    Squeeze,
    Step,
    describe,
)
from composecli.core.contract import Port, takes, takes_dtype
from composecli.core.dims import Free, admits
from composecli.core.dtypes import ANY_FLOAT, FLOATS
from composecli.core.pytree import TensorSpec

_WHOLE = ("bool", "uint8", "int8", "int16", "int32", "int64")


def apply(step: Step, spec: TensorSpec) -> TensorSpec:
    """The tensor that comes out of a step.

    Raises:
        ValueError: the step does not take this tensor.
    """
    sizes = spec.sizes
    match step:
        case Cast(dtype):
            return TensorSpec(dtype, sizes)
        case Flatten(start):
            if start >= len(sizes):
                raise ValueError(f"no axis {start} in {spec}")
            return TensorSpec(spec.dtype, (*sizes[:start], math.prod(sizes[start:])))
        case Squeeze(axis):
            if axis >= len(sizes) or sizes[axis] != 1:
                raise ValueError(f"axis {axis} of {spec} is not of size 1")
            return TensorSpec(spec.dtype, (*sizes[:axis], *sizes[axis + 1 :]))
        case Linear(axis, before, after, dtype):
            if axis >= len(sizes) or sizes[axis] != before or spec.dtype != dtype:
                raise ValueError(f"{describe(step)} does not take {spec}")
            return TensorSpec(dtype, (*sizes[:axis], after, *sizes[axis + 1 :]))
        case _:
            assert_never(step)


def apply_all(bridge: Bridge, spec: TensorSpec) -> TensorSpec:
    for step in bridge:
        spec = apply(step, spec)
    return spec


def castable(found: str, wanted: str) -> bool:
    """Whether values keep their meaning: numbers to floats, small whole numbers to larger ones."""
    if wanted in FLOATS:
        return found in FLOATS or found in _WHOLE
    return found in _WHOLE and wanted in _WHOLE[1:] and _WHOLE.index(found) < _WHOLE.index(wanted)


def plan(found: TensorSpec, wanted: Port, mode: BridgeMode) -> Bridge | None:
    """The fewest and cheapest steps that make `found` a tensor which `wanted` takes; None where there are none.

    An untrained layer is the last resort, and never along axis 0.
    """
    if mode is BridgeMode.NONE:
        return () if takes(wanted, found) is not False else None
    shaped = [cast + shape for cast in _casts(found, wanted) for shape in _reshapes(found, wanted)]
    for bridge in sorted(shaped, key=len):
        if takes(wanted, apply_all(bridge, found)) is not False:
            return bridge
    if mode is BridgeMode.AUTO:
        return None
    for bridge in sorted(shaped, key=len):
        layer = _linear(apply_all(bridge, found), wanted)
        if layer is not None:
            return (*bridge, layer)
    return None


def _casts(found: TensorSpec, wanted: Port) -> list[Bridge]:
    if takes_dtype(wanted, found.dtype):
        return [()]
    dtype = "float32" if wanted.dtype == ANY_FLOAT else wanted.dtype
    return [(Cast(dtype),)] if castable(found.dtype, dtype) else []


def _reshapes(found: TensorSpec, wanted: Port) -> Iterator[Bridge]:
    if wanted.dims is None or len(found.sizes) <= len(wanted.dims):
        yield ()
        return
    ones = [axis for axis, size in enumerate(found.sizes) if size == 1 and axis > 0]
    for gone in combinations(reversed(ones), len(found.sizes) - len(wanted.dims)):
        yield tuple(Squeeze(axis) for axis in gone)
    if len(wanted.dims) >= 2:
        yield (Flatten(len(wanted.dims) - 1),)


def _linear(found: TensorSpec, wanted: Port) -> Linear | None:
    if wanted.dims is None or len(found.sizes) != len(wanted.dims) or found.dtype not in FLOATS:
        return None
    if not takes_dtype(wanted, found.dtype):
        return None
    wrong = [
        (axis, dim)
        for axis, (dim, size) in enumerate(zip(wanted.dims, found.sizes, strict=True))
        if admits(dim, size) is False
    ]
    if len(wrong) != 1:
        return None
    axis, dim = wrong[0]
    size = getattr(dim, "size", None)
    if isinstance(dim, Free) or axis == 0 or not isinstance(size, int) or not found.sizes[axis]:
        return None
    return Linear(axis, found.sizes[axis], size, found.dtype)
