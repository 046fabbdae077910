"""Inference: from clues and probes to a contract, or to what was tried.

`ask` runs one forward. Evidence is used cheapest first: what the user states, what the file states, then what
the model's first parameters ask for; every contract is confirmed by a probe, and which dims are free is probed.
"""

from __future__ import annotations

from collections.abc import Iterator

from composecli.core.contract import Evidence, EvidenceKind
from composecli.inference.adjust import match_weights, prefer_floats, prefer_given_rank
from composecli.inference.budget import Budget
from composecli.inference.candidates import Candidate, initial_candidates
from composecli.inference.generalize import generalize
from composecli.inference.hints import Hints
from composecli.inference.prober import Ask, Prober
from composecli.inference.result import Found, NotFound
from composecli.inference.search import FoundCandidate, search


def infer(hints: Hints, ask: Ask, budget: Budget | None = None) -> Found | NotFound:
    """The contract of a model, or what was tried to find it."""
    probing = Prober(ask, budget or Budget())
    guesses = initial_candidates(hints.facts) if hints.stated is None else iter(())
    begun = search(_stated(hints), guesses, hints.facts, probing.trace)
    if not isinstance(begun, FoundCandidate):
        return NotFound(tuple(begun), probing.count, probing.stopped)
    candidate, seen = match_weights(begun.candidate, begun.seen, hints, probing)
    candidate, seen = prefer_given_rank(candidate, seen, hints, probing)
    candidate, seen = prefer_floats(candidate, seen, hints, probing)
    return Found(generalize(candidate, seen, hints, probing), probing.count, probing.stopped)


def _stated(hints: Hints) -> Iterator[Candidate]:
    """What the user states alone; else what the file states, and a producer's real output."""
    if hints.stated is not None:
        yield hints.stated
        return
    if hints.exported is not None:
        inputs = hints.exported.inputs
        dims = tuple((port.path, port.dims) for port in inputs if port.dims is not None)
        yield Candidate(hints.exported.example, hints.exported.evidence[0], dims)
    if hints.given is not None:
        yield Candidate(hints.given)
    if hints.traced is not None:
        yield Candidate(hints.traced, Evidence(EvidenceKind.TRACED, f"example {hints.traced}"))
