"""What inference ends with: a contract, or what was tried."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.contract import Contract
from composecli.core.observations import Rejected
from composecli.core.pytree import Call


@dataclass(frozen=True, slots=True)
class Found:
    """`stopped` says why no more was tried, where there was more to try: then some dims are open."""

    contract: Contract
    probes: int
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class NotFound:
    """What was tried, each with where it was refused, the best try first; and how many forwards that took.

    `stopped` says why no more was tried, where there was more to try.
    """

    tried: tuple[tuple[Call, Rejected], ...]
    probes: int
    stopped: str = ""
