"""Bridges: the steps between two models that make the output of one an input of the other.

A kind of step is one class here, listed in `Step`. It knows the tensors that it accepts, the dims
that it leaves, its JSON form, and when it helps. `runtime/bridge_steps.py` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import TypeVar, get_args

from composecli.core.contract import Port, accepts_dtype
from composecli.core.dims import Dim, Fixed, Shape, admits, fixed_size, product
from composecli.core.dtypes import ANY_FLOAT, FLOATS, is_integer, is_wider_integer
from composecli.core.pytree import TensorSpec

StepData = dict[str, str | int]
_T = TypeVar("_T")


class BridgeMode(StrEnum):
    """The steps that a bridge may use: none, those without parameters, or untrained layers too."""

    NONE = "none"
    AUTO = "auto"
    LINEAR = "linear"


class _Step:
    """Defaults of a step: it has no parameters and accepts every size."""

    __slots__ = ()

    @property
    def parameter_count(self) -> int:
        """The number of parameters that the step adds."""
        return 0

    @property
    def required_sizes(self) -> dict[int, int]:
        """The size that the step needs on an axis, by axis."""
        return {}


@dataclass(frozen=True, slots=True)
class Cast(_Step):
    """Convert to another dtype that preserves the meaning of the values: never numbers to ids."""

    dtype: str

    def __str__(self) -> str:
        return f"cast to {self.dtype}"

    def as_data(self) -> StepData:
        """Return the step as data: its type, then its fields."""
        return {"type": "Cast", "dtype": self.dtype}

    def apply(self, spec: TensorSpec) -> TensorSpec:
        """Return `spec` after the step."""
        return TensorSpec(self.dtype, spec.sizes)

    def carry(self, dims: Shape) -> Shape:
        """Return the dims that are left of `dims` after the step."""
        return dims

    @classmethod
    def toward(cls, spec: TensorSpec, port: Port) -> Iterator[Bridge]:
        """Yield the cast to the port's dtype, if the tensor needs one that keeps its meaning."""
        if accepts_dtype(port, spec.dtype):
            return
        target = port.dtype
        if target == ANY_FLOAT:
            target = "float32"
        if can_cast(spec.dtype, target):
            yield (cls(target),)


@dataclass(frozen=True, slots=True)
class Squeeze(_Step):
    """Remove an axis of size 1."""

    axis: int

    def __str__(self) -> str:
        return f"squeeze axis {self.axis}"

    @property
    def required_sizes(self) -> dict[int, int]:
        """The size that the step needs on an axis, by axis."""
        return {self.axis: 1}

    def as_data(self) -> StepData:
        """Return the step as data: its type, then its fields."""
        return {"type": "Squeeze", "axis": self.axis}

    def apply(self, spec: TensorSpec) -> TensorSpec:
        """Return `spec` after the step: `float32[2, 5, 1]` becomes `float32[2, 5]`.

        Raises:
            ValueError: if the axis is not of size 1.
        """
        if self.axis >= len(spec.sizes) or spec.sizes[self.axis] != 1:
            raise ValueError(f"axis {self.axis} of {spec} is not of size 1")
        return TensorSpec(spec.dtype, _without(spec.sizes, self.axis))

    def carry(self, dims: Shape) -> Shape:
        """Return the dims that are left of `dims` after the step."""
        return _without(dims, self.axis)

    @classmethod
    def toward(cls, spec: TensorSpec, port: Port) -> Iterator[Bridge]:
        """Yield the squeezes that leave the rank of the port.

        The last axes go first, and axis 0, the batch, never goes.
        """
        surplus = _surplus_axes(spec, port)
        if surplus == 0:
            return
        axes_of_one = [axis for axis in range(1, len(spec.sizes)) if spec.sizes[axis] == 1]
        for axes in combinations(reversed(axes_of_one), surplus):
            yield tuple(cls(axis) for axis in axes)


@dataclass(frozen=True, slots=True)
class Flatten(_Step):
    """Merge the axes from `start` on into one: from 1, `(N, 64, 4, 4)` becomes `(N, 1024)`."""

    start: int

    def __str__(self) -> str:
        return f"flatten from axis {self.start}"

    def as_data(self) -> StepData:
        """Return the step as data: its type, then its fields."""
        return {"type": "Flatten", "start": self.start}

    def apply(self, spec: TensorSpec) -> TensorSpec:
        """Return `spec` after the step: `float32[2, 64, 4, 4]` becomes `float32[2, 1024]`.

        Raises:
            ValueError: if the tensor does not have the first axis.
        """
        sizes = spec.sizes
        if self.start >= len(sizes):
            raise ValueError(f"no axis {self.start} in {spec}")
        merged = math.prod(sizes[self.start :])
        return TensorSpec(spec.dtype, (*sizes[: self.start], merged))

    def carry(self, dims: Shape) -> Shape:
        """Return the dims that are left of `dims`: `(N, 64, H, W)` becomes `(N, 64*H*W)`."""
        merged: Dim = product(dims[self.start :])
        return (*dims[: self.start], merged)

    @classmethod
    def toward(cls, spec: TensorSpec, port: Port) -> Iterator[Bridge]:
        """Yield the flatten that leaves the rank of the port and does not touch the batch."""
        if port.dims is None or len(port.dims) < 2:
            return
        if _surplus_axes(spec, port) > 0:
            yield (cls(len(port.dims) - 1),)


@dataclass(frozen=True, slots=True)
class Linear(_Step):
    """Apply a new, untrained `nn.Linear` along one axis: `(N, before)` becomes `(N, after)`."""

    axis: int
    before: int
    after: int
    dtype: str = "float32"

    def __str__(self) -> str:
        layer = f"Linear({self.before} -> {self.after}) along axis {self.axis}"
        return f"{layer}, {self.parameter_count:,} parameters, untrained"

    @property
    def parameter_count(self) -> int:
        """The number of parameters that the step adds: weight and bias."""
        return self.before * self.after + self.after

    @property
    def required_sizes(self) -> dict[int, int]:
        """The size that the step needs on an axis, by axis."""
        return {self.axis: self.before}

    def as_data(self) -> StepData:
        """Return the step as data: its type, then its fields."""
        return {
            "type": "Linear",
            "axis": self.axis,
            "before": self.before,
            "after": self.after,
            "dtype": self.dtype,
        }

    def apply(self, spec: TensorSpec) -> TensorSpec:
        """Return `spec` after the step.

        Raises:
            ValueError: if its axis or its dtype is not the one that the layer was made for.
        """
        sizes, axis = spec.sizes, self.axis
        if axis >= len(sizes) or sizes[axis] != self.before or spec.dtype != self.dtype:
            raise ValueError(f"{self} does not take {spec}")
        return TensorSpec(self.dtype, (*sizes[:axis], self.after, *sizes[axis + 1 :]))

    def carry(self, dims: Shape) -> Shape:
        """Return the dims that are left of `dims` after the step."""
        return (*dims[: self.axis], Fixed(self.after), *dims[self.axis + 1 :])

    @classmethod
    def toward(cls, spec: TensorSpec, port: Port) -> Iterator[Bridge]:
        """Yield the layer for the one axis whose fixed size differs, unless it is the batch."""
        dims, sizes = port.dims, spec.sizes
        if spec.dtype not in FLOATS or not accepts_dtype(port, spec.dtype):
            return
        if dims is None or len(sizes) != len(dims):
            return
        wrong = [axis for axis, dim in enumerate(dims) if admits(dim, sizes[axis]) is False]
        if len(wrong) != 1 or wrong == [0]:
            return
        axis = wrong[0]
        before, after = sizes[axis], fixed_size(dims[axis])
        if before and after:
            yield (cls(axis, before, after, spec.dtype),)


# A bridge contains each kind at most once, in this order; those with parameters are last.
Step = Cast | Squeeze | Flatten | Linear
Bridge = tuple[Step, ...]
STEP_KINDS: tuple[type[Step], ...] = get_args(Step)


def apply_all(bridge: Bridge, spec: TensorSpec) -> TensorSpec:
    """Return `spec` after all steps of a bridge.

    Raises:
        ValueError: if a step does not accept the tensor.
    """
    for step in bridge:
        spec = step.apply(spec)
    return spec


def carry_all(bridge: Bridge, dims: Shape) -> Shape:
    """Return the dims that all steps of a bridge leave of `dims`."""
    for step in bridge:
        dims = step.carry(dims)
    return dims


def can_cast(source: str, target: str) -> bool:
    """Return whether values keep their meaning: numbers as floats, integers as wider integers."""
    if target in FLOATS:
        return source in FLOATS or source == "bool" or is_integer(source)
    return is_wider_integer(target, source)


def _surplus_axes(spec: TensorSpec, port: Port) -> int:
    """Return how many axes the tensor has more than the port, 0 if the port allows any rank."""
    if port.dims is None:
        return 0
    return max(0, len(spec.sizes) - len(port.dims))


def _without(items: tuple[_T, ...], number: int) -> tuple[_T, ...]:
    return (*items[:number], *items[number + 1 :])
