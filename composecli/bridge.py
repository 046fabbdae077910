"""Bridges: the steps put between two models, and the plan that finds the fewest and cheapest of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import assert_never

from composecli.contract import ANY_FLOAT, FLOATS, Port, takes, takes_dtype
from composecli.dims import Free, admits
from composecli.trees import TensorSpec


class BridgeMode(StrEnum):
    """What a bridge may hold: nothing, steps without parameters, or an untrained layer too."""

    NONE = "none"
    AUTO = "auto"
    LINEAR = "linear"


@dataclass(frozen=True, slots=True)
class Cast:
    """To another dtype; only where no value's meaning is lost (never from numbers to ids)."""

    dtype: str


@dataclass(frozen=True, slots=True)
class Flatten:
    """Axes from `start` on become one: `(N, 64, 4, 4)` from 1 gives `(N, 1024)`."""

    start: int


@dataclass(frozen=True, slots=True)
class Squeeze:
    """An axis of size 1 is taken away."""

    axis: int


@dataclass(frozen=True, slots=True)
class Linear:
    """A generated `nn.Linear` along one axis: `(N, before)` gives `(N, after)`. Untrained."""

    axis: int
    before: int
    after: int
    dtype: str = "float32"


Step = Cast | Flatten | Squeeze | Linear
Bridge = tuple[Step, ...]

_WHOLE = ("bool", "uint8", "int8", "int16", "int32", "int64")


def parameter_count(step: Step) -> int:
    match step:
        case Linear(_, before, after):
            return before * after + after
        case Cast() | Flatten() | Squeeze():
            return 0
        case _:
            assert_never(step)


def describe(step: Step) -> str:
    match step:
        case Cast(dtype):
            return f"cast to {dtype}"
        case Flatten(start):
            return f"flatten from axis {start}"
        case Squeeze(axis):
            return f"squeeze axis {axis}"
        case Linear(axis, before, after):
            return f"Linear({before} -> {after}) along axis {axis}, {parameter_count(step):,} parameters, untrained"
        case _:
            assert_never(step)


def as_data(step: Step) -> dict[str, str | int]:
    """Return a step as JSON reports and the provenance of a joined file show it: its type, then its fields."""
    match step:
        case Cast(dtype):
            return {"type": "Cast", "dtype": dtype}
        case Flatten(start):
            return {"type": "Flatten", "start": start}
        case Squeeze(axis):
            return {"type": "Squeeze", "axis": axis}
        case Linear(axis, before, after, dtype):
            return {"type": "Linear", "axis": axis, "before": before, "after": after, "dtype": dtype}
        case _:
            assert_never(step)


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
