"""The budget: the most that finding what one model takes may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """Forwards, and seconds for all of them together."""

    probes: int = 300
    seconds: float = 120.0
