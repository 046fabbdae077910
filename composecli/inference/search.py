"""Search: from proposals to one that the model accepts, going on from the tries that got furthest."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from composecli.core.facts import ModelFacts
from composecli.core.observations import Accepted, Refused, Untried
from composecli.core.pytree import Call, call_leaves
from composecli.inference.candidates import Proposal
from composecli.inference.prober import Run
from composecli.inference.repairs import corrections

MOST_PROPOSALS = 90
MOST_AT_ONE_PLACE = 24
MOST_ELEMENTS = 6_000_000


@dataclass(frozen=True, slots=True)
class Begun:
    """A proposal that was accepted."""

    proposal: Proposal
    seen: Accepted


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """A proposal to try: first by how far the one that it follows from got (as a negative), then by its cost."""

    progress: int
    cost: int
    order: int
    proposal: Proposal = field(compare=False)


@dataclass
class _Frontier:
    """What is left to try. First what follows from the try that got furthest, unless nothing comes of it for long."""

    entries: list[_Entry] = field(default_factory=list)
    tried: set[Call] = field(default_factory=set)
    places: set[tuple[int, str]] = field(default_factory=set)
    spent: dict[tuple[int, str], int] = field(default_factory=dict)

    def add(self, proposal: Proposal, progress: int, cost: int) -> None:
        if proposal.call not in self.tried:
            heapq.heappush(self.entries, _Entry(-progress, cost, len(self.entries) + len(self.tried), proposal))

    def follow(self, entry: _Entry, refused: Refused, better: Iterable[tuple[int, Proposal]]) -> None:
        """What a refusal leads to: it costs as if begun anew where it got further than the try before it, or to a
        place where none was refused yet."""
        place = (refused.ops, refused.where)
        new = refused.ops > -entry.progress or place not in self.places
        self.places.add(place)
        for cost, proposal in better:
            self.add(proposal, refused.ops, cost if new else entry.cost + cost)

    def next(self) -> _Entry | None:
        while self.entries:
            entry = heapq.heappop(self.entries)
            if entry.proposal.call in self.tried or entry.proposal.call.elements > MOST_ELEMENTS:
                continue
            place = (entry.progress, _form(entry.proposal.call))
            self.spent[place] = self.spent.get(place, 0) + 1
            if entry.progress < 0 and self.spent[place] > MOST_AT_ONE_PLACE:
                heapq.heappush(self.entries, replace(entry, progress=1))
                continue
            self.tried.add(entry.proposal.call)
            return entry
        return None


def _form(call: Call) -> str:
    return " ".join(f"{spec.dtype}{len(spec.sizes)}" for _, spec in call_leaves(call))


def search(
    stated: Iterable[Proposal], guessed: Iterable[Proposal], facts: ModelFacts, run: Run
) -> Begun | list[tuple[Call, Refused]]:
    """The first proposal that is accepted, or all that was refused, what got furthest first.

    `stated` come from the user or the file and are tried as they are; `guessed` are corrected by what they are
    refused for.
    """
    refusals = list[tuple[Call, Refused]]()
    for proposal in stated:
        match run(proposal.call):
            case Accepted() as seen:
                return Begun(proposal, seen)
            case Refused() as refused:
                refusals.append((proposal.call, refused))
    frontier = _Frontier()
    for number, guess in enumerate(guessed):
        frontier.add(guess, 0, 2 * number)
    while len(frontier.tried) < MOST_PROPOSALS and (entry := frontier.next()) is not None:
        match run(entry.proposal.call):
            case Accepted() as seen:
                return Begun(entry.proposal, seen)
            case Refused() as refused:
                refusals.append((entry.proposal.call, refused))
                frontier.follow(entry, refused, corrections(entry.proposal, refused, facts))
            case Untried():
                break
    refusals.sort(key=lambda item: -item[1].ops)
    return refusals
