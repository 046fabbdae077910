"""Inference: from clues and probes to a contract, or to what was tried.

`ask` runs one forward. Evidence is used cheapest first: what the user states, what the file states, then what
the model's first parameters ask for; every contract is confirmed by a probe, and which dims are free is probed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from composecli.budget import Budget
from composecli.clues import Clues
from composecli.contract import Contract, Evidence, EvidenceKind
from composecli.observations import Refused
from composecli.probing import Ask, Probing
from composecli.propose import Proposal, seeds
from composecli.refine import as_numbers, as_the_weights_say, near_the_given
from composecli.search import Begun, search
from composecli.settle import settle
from composecli.trees import Call


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

    tried: tuple[tuple[Call, Refused], ...]
    probes: int
    stopped: str = ""


def infer(clues: Clues, ask: Ask, budget: Budget | None = None) -> Found | NotFound:
    """The contract of a model, or what was tried to find it."""
    probing = Probing(ask, budget or Budget())
    guesses = seeds(clues.facts) if clues.stated is None else iter(())
    begun = search(_stated(clues), guesses, clues.facts, probing.watch)
    if not isinstance(begun, Begun):
        return NotFound(tuple(begun), probing.count, probing.stopped)
    proposal, seen = as_the_weights_say(begun.proposal, begun.seen, clues, probing)
    proposal, seen = near_the_given(proposal, seen, clues, probing)
    proposal, seen = as_numbers(proposal, seen, clues, probing)
    return Found(settle(proposal, seen, clues, probing), probing.count, probing.stopped)


def _stated(clues: Clues) -> Iterator[Proposal]:
    """What the user states alone; else what the file states, and a producer's real output."""
    if clues.stated is not None:
        yield clues.stated
        return
    if clues.exported is not None:
        inputs = clues.exported.inputs
        dims = tuple((port.path, port.dims) for port in inputs if port.dims is not None)
        yield Proposal(clues.exported.example, clues.exported.evidence[0], dims)
    if clues.given is not None:
        yield Proposal(clues.given)
    if clues.traced is not None:
        yield Proposal(clues.traced, Evidence(EvidenceKind.TRACED, f"example {clues.traced}"))
