"""Models against each other: every ordered pair of them judged as a chain of two, each model's contract found once."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from composecli.commands.composition import Judged
from composecli.commands.opened_model import Part
from composecli.commands.requests import CheckRequest
from composecli.commands.results import SeamReport
from composecli.commands.sequential import judge_chain
from composecli.commands.session import Session
from composecli.core.blueprint import Mode


def judge_pairs(request: CheckRequest, session: Session, parts: tuple[Part, ...]) -> Judged:
    """The seam of each pair, in the order of the models. There is nothing to be built of them."""
    contracts = tuple(session.each(session.infer, parts))
    pairs = list(permutations(parts, 2))

    def judge(number: int) -> tuple[SeamReport, ...]:
        if number % len(parts) == 0:
            session.tell(f"judging pairs: {number} of {len(pairs)}")
        pair = pairs[number]
        names = tuple(part.name for part in pair)
        return judge_chain(replace(request, models=names, mode=Mode.SEQUENTIAL), session, pair).seams

    seams = tuple(seam for found in session.each(judge, range(len(pairs))) for seam in found)
    return Judged(contracts, seams, None, None, None)
