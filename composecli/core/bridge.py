"""Bridges: the steps between two models that make the output of one an input of the other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class BridgeMode(StrEnum):
    """The steps that a bridge may use: none, those without parameters, or untrained layers too."""

    NONE = "none"
    AUTO = "auto"
    LINEAR = "linear"


@dataclass(frozen=True, slots=True)
class Cast:
    """Convert to another dtype that preserves the meaning of the values: never numbers to ids."""

    dtype: str


@dataclass(frozen=True, slots=True)
class Flatten:
    """Merge the axes from `start` on into one: from 1, `(N, 64, 4, 4)` becomes `(N, 1024)`."""

    start: int


@dataclass(frozen=True, slots=True)
class Squeeze:
    """Remove an axis of size 1."""

    axis: int


@dataclass(frozen=True, slots=True)
class Linear:
    """Apply a new, untrained `nn.Linear` along one axis: `(N, before)` becomes `(N, after)`."""

    axis: int
    before: int
    after: int
    dtype: str = "float32"


Step = Cast | Flatten | Squeeze | Linear
Bridge = tuple[Step, ...]


def parameter_count(step: Step) -> int:
    """Return the number of parameters that the step adds: weight and bias of a linear layer."""
    match step:
        case Linear(_, before, after):
            return before * after + after
        case Cast() | Flatten() | Squeeze():
            return 0
        case _:
            assert_never(step)


def describe(step: Step) -> str:
    """Return the step in words, for users."""
    match step:
        case Cast(dtype):
            return f"cast to {dtype}"
        case Flatten(start):
            return f"flatten from axis {start}"
        case Squeeze(axis):
            return f"squeeze axis {axis}"
        case Linear(axis, before, after):
            layer = f"Linear({before} -> {after}) along axis {axis}"
            return f"{layer}, {parameter_count(step):,} parameters, untrained"
        case _:
            assert_never(step)


def as_data(step: Step) -> dict[str, str | int]:
    """Return the step as data: its type, then its fields.

    JSON reports and the provenance of a joined file contain this form.
    """
    match step:
        case Cast(dtype):
            return {"type": "Cast", "dtype": dtype}
        case Flatten(start):
            return {"type": "Flatten", "start": start}
        case Squeeze(axis):
            return {"type": "Squeeze", "axis": axis}
        case Linear(axis, before, after, dtype):
            return {
                "type": "Linear",
                "axis": axis,
                "before": before,
                "after": after,
                "dtype": dtype,
            }
        case _:
            assert_never(step)
