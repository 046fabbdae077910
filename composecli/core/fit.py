"""Fits: at which sizes of the chain's input a seam holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Holds(StrEnum):
    """Over which of the sizes that the producer admits a seam holds."""

    ALWAYS = "always"
    SOMETIMES = "sometimes"
    NEVER = "never"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fit:
    """At which sizes of the chain's input a seam holds.

    `when` are conditions that hold together, in the text form of dims: `29<=H<=32`. `fits_at` and
    `fails_at` are sizes by name, at which the chain was run; None if there was no such run.
    """

    holds: Holds = Holds.UNKNOWN
    when: tuple[str, ...] = ()
    fits_at: Mapping[str, int] | None = None
    fails_at: Mapping[str, int] | None = None


def format_when(when: Iterable[str]) -> str:
    """Return conditions as part of a sentence: `H>=32 and H%16==0 and 8<=W<=64`."""
    return " and ".join(when).replace(" & ", " and ")


def format_sizes(sizes: Mapping[str, int]) -> str:
    """Return sizes by name as text: `H = 28, W = 32`."""
    return ", ".join(f"{name} = {size}" for name, size in sizes.items())
