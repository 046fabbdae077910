"""Search for one call that the model accepts, following the attempts that got furthest."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from composecli.core.observations import Accepted, Rejected, Untried
from composecli.core.pytree import Call, call_leaves
from composecli.inference.candidates import Candidate, keeps_statements
from composecli.inference.hints import Hints
from composecli.inference.prober import Probe
from composecli.inference.repairs import find_repairs

MAX_CANDIDATES = 90
MAX_ATTEMPTS_AT_ONE_PLACE = 24
MAX_ELEMENTS = 6_000_000

Attempt = tuple[Call, Rejected]


@dataclass(frozen=True, slots=True)
class FoundCandidate:
    """A candidate that was accepted."""

    candidate: Candidate
    accepted: Accepted


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """A candidate, ordered by the (negated) progress of the attempt it repairs, then by cost."""

    progress: int
    cost: int
    order: int
    candidate: Candidate = field(compare=False)


@dataclass
class _Frontier:
    """The candidates left to try.

    Repairs of the attempt that got furthest come first, unless too many of them led to nothing.
    """

    entries: list[_Entry] = field(default_factory=list)
    tried: set[Call] = field(default_factory=set)
    places: set[tuple[int, str]] = field(default_factory=set)
    attempts: dict[tuple[int, str], int] = field(default_factory=dict)

    def add(self, candidate: Candidate, progress: int, cost: int) -> None:
        """Add a candidate unless its call was tried."""
        if candidate.call in self.tried:
            return
        order = len(self.entries) + len(self.tried)
        entry = _Entry(-progress, cost, order, candidate)
        heapq.heappush(self.entries, entry)

    def add_repairs(
        self, entry: _Entry, rejected: Rejected, repairs: Iterable[tuple[int, Candidate]]
    ) -> None:
        """Add the repairs of a rejected entry.

        Their cost starts from zero if the attempt got further than the one before it, or failed
        at a new place; otherwise it is added to the entry's.
        """
        place = (rejected.ops, rejected.where)
        start_cost = entry.cost
        got_further = rejected.ops > -entry.progress
        if got_further or place not in self.places:
            start_cost = 0
        self.places.add(place)
        for cost, candidate in repairs:
            self.add(candidate, rejected.ops, start_cost + cost)

    def pop(self) -> _Entry | None:
        """Remove and return the next entry to try; None if there is none."""
        while self.entries:
            entry = heapq.heappop(self.entries)
            call = entry.candidate.call
            if call in self.tried or call.elements > MAX_ELEMENTS:
                continue
            place = (entry.progress, _dtypes_and_ranks(call))
            attempts = self.attempts.get(place, 0) + 1
            self.attempts[place] = attempts
            if entry.progress < 0 and attempts > MAX_ATTEMPTS_AT_ONE_PLACE:
                # Behind all others, also those that made no progress.
                postponed = replace(entry, progress=1)
                heapq.heappush(self.entries, postponed)
                continue
            self.tried.add(call)
            return entry
        return None


def _dtypes_and_ranks(call: Call) -> str:
    """Return the dtype and rank of each tensor of a call: `float324 int642`."""
    kinds = list[str]()
    for _, spec in call_leaves(call):
        kinds.append(f"{spec.dtype}{len(spec.sizes)}")
    return " ".join(kinds)


def _is_allowed(candidate: Candidate, hints: Hints) -> bool:
    """Return whether a candidate keeps the arguments that the user stated."""
    return keeps_statements(candidate, hints.facts, hints.partial)


def search(
    stated: Iterable[Candidate], guessed: Iterable[Candidate], hints: Hints, probe: Probe
) -> FoundCandidate | list[Attempt]:
    """Return the first candidate that is accepted, or all rejected attempts, the furthest first.

    `stated` come from the user or the file and are tried as they are; `guessed` are repaired when
    they are rejected.
    """
    attempts = list[Attempt]()
    for candidate in stated:
        match probe(candidate.call):
            case Accepted() as accepted:
                return FoundCandidate(candidate, accepted)
            case Rejected() as rejected:
                attempts.append((candidate.call, rejected))
    frontier = _Frontier()
    for number, guess in enumerate(guessed):
        frontier.add(guess, 0, 2 * number)
    while len(frontier.tried) < MAX_CANDIDATES:
        entry = frontier.pop()
        if entry is None:
            break
        candidate = entry.candidate
        match probe(candidate.call):
            case Accepted() as accepted:
                return FoundCandidate(candidate, accepted)
            case Rejected() as rejected:
                attempts.append((candidate.call, rejected))
                found = find_repairs(candidate, rejected, hints.facts)
                repairs = [repair for repair in found if _is_allowed(repair[1], hints)]
                frontier.add_repairs(entry, rejected, repairs)
            case Untried():
                break
    attempts.sort(key=lambda attempt: attempt[1].ops, reverse=True)
    return attempts
