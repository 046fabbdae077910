"""Models against each other: every ordered pair of them judged as a chain of two, each model's contract found once."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from composecli.commands.composition import Composition
from composecli.commands.opened_model import OpenedModel
from composecli.commands.requests import CheckRequest
from composecli.commands.results import SeamReport
from composecli.commands.sequential import check_sequential
from composecli.commands.session import Session
from composecli.core.blueprint import Mode


def check_pairs(
    request: CheckRequest, session: Session, parts: tuple[OpenedModel, ...]
) -> Composition:
    """The seam of each pair, in the order of the models. There is nothing to be built of them."""
    contracts = tuple(session.map(session.infer, parts))
    pairs = list(permutations(parts, 2))

    def judge(number: int) -> tuple[SeamReport, ...]:
        if number % len(parts) == 0:
            session.tell(f"judging pairs: {number} of {len(pairs)}")
        pair = pairs[number]
        names = tuple(part.name for part in pair)
        return check_sequential(
            replace(request, models=names, mode=Mode.SEQUENTIAL), session, pair
        ).seams

    seams = tuple(seam for found in session.map(judge, range(len(pairs))) for seam in found)
    return Composition(contracts, seams, None, None, None)
