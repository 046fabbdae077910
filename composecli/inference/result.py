"""The result of inference: a contract, or the inputs that were tried."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.contract import Contract
from composecli.core.observations import Rejected
from composecli.core.pytree import Call


@dataclass(frozen=True, slots=True)
class Found:
    """The contract of a model, and the number of forwards that inference ran.

    `stopped` is why inference ended early, in which case some dims are unknown; empty if it ended
    by itself.
    """

    contract: Contract
    probes: int
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class NotFound:
    """The calls that were tried, each with how it was rejected, the one that got furthest first.

    `probes` and `stopped` as in `Found`.
    """

    tried: tuple[tuple[Call, Rejected], ...]
    probes: int
    stopped: str = ""
