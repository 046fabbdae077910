"""Search: from proposals to one that the model accepts, going on from the tries that got furthest."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from composecli.core.facts import ModelFacts
from composecli.core.observations import Accepted, Rejected, Untried
from composecli.core.pytree import Call, call_leaves
from composecli.inference.candidates import Candidate
from composecli.inference.prober import Run
from composecli.inference.repairs import find_repairs

MOST_PROPOSALS = 90
MOST_AT_ONE_PLACE = 24
MOST_ELEMENTS = 6_000_000


@dataclass(frozen=True, slots=True)
class FoundCandidate:
    """A proposal that was accepted."""

    candidate: Candidate
    seen: Accepted


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """A proposal to try: first by how far the one that it follows from got (as a negative), then by its cost."""

    progress: int
    cost: int
    order: int
    candidate: Candidate = field(compare=False)


@dataclass
class _Frontier:
    """What is left to try. First what follows from the try that got furthest, unless nothing comes of it for long."""

    entries: list[_Entry] = field(default_factory=list)
    tried: set[Call] = field(default_factory=set)
    places: set[tuple[int, str]] = field(default_factory=set)
    spent: dict[tuple[int, str], int] = field(default_factory=dict)

    def add(self, candidate: Candidate, progress: int, cost: int) -> None:
        if candidate.call not in self.tried:
            heapq.heappush(
                self.entries,
                _Entry(-progress, cost, len(self.entries) + len(self.tried), candidate),
            )

    def follow(
        self, entry: _Entry, refused: Rejected, better: Iterable[tuple[int, Candidate]]
    ) -> None:
        """What a refusal leads to: it costs as if begun anew where it got further than the try before it, or to a
        place where none was refused yet."""
        place = (refused.ops, refused.where)
        new = refused.ops > -entry.progress or place not in self.places
        self.places.add(place)
        for cost, candidate in better:
            self.add(candidate, refused.ops, cost if new else entry.cost + cost)

    def next(self) -> _Entry | None:
        while self.entries:
            entry = heapq.heappop(self.entries)
            if entry.candidate.call in self.tried or entry.candidate.call.elements > MOST_ELEMENTS:
                continue
            place = (entry.progress, _form(entry.candidate.call))
            self.spent[place] = self.spent.get(place, 0) + 1
            if entry.progress < 0 and self.spent[place] > MOST_AT_ONE_PLACE:
                heapq.heappush(self.entries, replace(entry, progress=1))
                continue
            self.tried.add(entry.candidate.call)
            return entry
        return None


def _form(call: Call) -> str:
    return " ".join(f"{spec.dtype}{len(spec.sizes)}" for _, spec in call_leaves(call))


def search(
    stated: Iterable[Candidate], guessed: Iterable[Candidate], facts: ModelFacts, run: Run
) -> FoundCandidate | list[tuple[Call, Rejected]]:
    """The first proposal that is accepted, or all that was refused, what got furthest first.

    `stated` come from the user or the file and are tried as they are; `guessed` are corrected by what they are
    refused for.
    """
    refusals = list[tuple[Call, Rejected]]()
    for candidate in stated:
        match run(candidate.call):
            case Accepted() as seen:
                return FoundCandidate(candidate, seen)
            case Rejected() as refused:
                refusals.append((candidate.call, refused))
    frontier = _Frontier()
    for number, guess in enumerate(guessed):
        frontier.add(guess, 0, 2 * number)
    while len(frontier.tried) < MOST_PROPOSALS and (entry := frontier.next()) is not None:
        match run(entry.candidate.call):
            case Accepted() as seen:
                return FoundCandidate(entry.candidate, seen)
            case Rejected() as refused:
                refusals.append((entry.candidate.call, refused))
                frontier.follow(entry, refused, find_repairs(entry.candidate, refused, facts))
            case Untried():
                break
    refusals.sort(key=lambda item: -item[1].ops)
    return refusals
