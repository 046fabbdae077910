"""Inference: from clues and probes to a contract, or to what was tried.

`ask` runs one forward. Evidence is used cheapest first: what the user states, what the file states, then what
the model's first parameters ask for; every contract is confirmed by a probe, and which dims are free is probed.
"""

from __future__ import annotations

from collections.abc import Iterator

from composecli.core.contract import Evidence, EvidenceKind
from composecli.inference.adjust import as_numbers, as_the_weights_say, near_the_given
from composecli.inference.budget import Budget
from composecli.inference.candidates import Proposal, seeds
from composecli.inference.generalize import settle
from composecli.inference.hints import Clues
from composecli.inference.prober import Ask, Probing
from composecli.inference.result import Found, NotFound
from composecli.inference.search import Begun, search


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
