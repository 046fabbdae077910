"""Bridges: the steps put between two models, and the plan that finds the fewest and cheapest of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


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
            return {
                "type": "Linear",
                "axis": axis,
                "before": before,
                "after": after,
                "dtype": dtype,
            }
        case _:
            assert_never(step)
