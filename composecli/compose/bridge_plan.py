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
from composecli.core.contract import Port, accepts, accepts_dtype
from composecli.core.dims import admits, fixed_size
from composecli.core.dtypes import ANY_FLOAT, FLOATS, is_integer, is_wider_integer
from composecli.core.pytree import TensorSpec


def apply(step: Step, spec: TensorSpec) -> TensorSpec:
    """Return the output of a step.

    `Flatten(1)` makes `float32[2, 1024]` of `float32[2, 64, 4, 4]`.

    Raises:
        ValueError: if the step does not accept this tensor.
    """
    sizes = spec.sizes
    match step:
        case Cast(dtype):
            return TensorSpec(dtype, sizes)
        case Flatten(start):
            if start >= len(sizes):
                raise ValueError(f"no axis {start} in {spec}")
            flattened = math.prod(sizes[start:])
            return TensorSpec(spec.dtype, (*sizes[:start], flattened))
        case Squeeze(axis):
            if axis >= len(sizes) or sizes[axis] != 1:
                raise ValueError(f"axis {axis} of {spec} is not of size 1")
            remaining = (*sizes[:axis], *sizes[axis + 1 :])
            return TensorSpec(spec.dtype, remaining)
        case Linear(axis, before, after, dtype):
            if axis >= len(sizes) or sizes[axis] != before or spec.dtype != dtype:
                raise ValueError(f"{describe(step)} does not take {spec}")
            replaced = (*sizes[:axis], after, *sizes[axis + 1 :])
            return TensorSpec(dtype, replaced)
        case _:
            assert_never(step)


def apply_all(bridge: Bridge, spec: TensorSpec) -> TensorSpec:
    """Return the output of all steps of a bridge, one after the other."""
    for step in bridge:
        spec = apply(step, spec)
    return spec


def can_cast(source: str, target: str) -> bool:
    """Return whether values keep their meaning: numbers as floats, integers as wider integers."""
    if target in FLOATS:
        return source in FLOATS or source == "bool" or is_integer(source)
    return is_wider_integer(target, source)


def plan(producer: TensorSpec, consumer: Port, mode: BridgeMode) -> Bridge | None:
    """Return the fewest and cheapest steps after which the consumer accepts the tensor.

    `float32[2, 64, 4, 4]` reaches `float32[N, 1024]` by `(Flatten(1),)`, and `float32[N, 10]` by
    `(Flatten(1), Linear(1, 1024, 10))` if the mode allows an untrained layer, which is the last
    resort and is never put along axis 0. The result is None if no steps of this mode help.
    """
    if mode is BridgeMode.NONE:
        if accepts(consumer, producer) is False:
            return None
        return ()
    candidates = _parameter_free_bridges(producer, consumer)
    for bridge in candidates:
        bridged = apply_all(bridge, producer)
        if accepts(consumer, bridged) is not False:
            return bridge
    if mode is BridgeMode.AUTO:
        return None
    for bridge in candidates:
        bridged = apply_all(bridge, producer)
        layer = _plan_linear(bridged, consumer)
        if layer is not None:
            return (*bridge, layer)
    return None


def _parameter_free_bridges(producer: TensorSpec, consumer: Port) -> list[Bridge]:
    """Return the bridges to the dtype and the rank of the consumer, the shortest first."""
    bridges = list[Bridge]()
    for cast in _casts(producer, consumer):
        for reshape in _reshapes(producer, consumer):
            bridges.append(cast + reshape)
    return sorted(bridges, key=len)


def _casts(producer: TensorSpec, consumer: Port) -> list[Bridge]:
    """Return the empty bridge if no cast is needed, one cast, or nothing if none helps."""
    if accepts_dtype(consumer, producer.dtype):
        return [()]
    target = consumer.dtype
    if target == ANY_FLOAT:
        target = "float32"
    if not can_cast(producer.dtype, target):
        return []
    cast = Cast(target)
    return [(cast,)]


def _reshapes(producer: TensorSpec, consumer: Port) -> Iterator[Bridge]:
    """Yield the bridges to the consumer's rank: squeezes of axes of size 1, then a flatten."""
    sizes, dims = producer.sizes, consumer.dims
    if dims is None or len(sizes) <= len(dims):
        yield ()
        return
    axes_of_one = list[int]()
    # The last axes go first, and axis 0, the batch, never goes.
    for axis in range(len(sizes) - 1, 0, -1):
        if sizes[axis] == 1:
            axes_of_one.append(axis)
    surplus = len(sizes) - len(dims)
    for axes in combinations(axes_of_one, surplus):
        yield tuple(Squeeze(axis) for axis in axes)
    if len(dims) >= 2:
        flatten = Flatten(len(dims) - 1)
        yield (flatten,)


def _plan_linear(producer: TensorSpec, consumer: Port) -> Linear | None:
    """Return the layer for the one axis whose fixed size differs; None if more differs."""
    if producer.dtype not in FLOATS or not accepts_dtype(consumer, producer.dtype):
        return None
    dims = consumer.dims
    if dims is None or len(producer.sizes) != len(dims):
        return None
    wrong_axes = list[int]()
    for number, dim in enumerate(dims):
        if admits(dim, producer.sizes[number]) is False:
            wrong_axes.append(number)
    if len(wrong_axes) != 1:
        return None
    axis = wrong_axes[0]
    before = producer.sizes[axis]
    after = fixed_size(dims[axis])
    if axis == 0 or not before or after is None:
        return None
    return Linear(axis, before, after, producer.dtype)
