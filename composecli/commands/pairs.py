"""Models against each other: judge every ordered pair as a chain of two."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from composecli.commands.composition import Composition
from composecli.commands.opened_model import OpenedModels
from composecli.commands.requests import CheckRequest
from composecli.commands.results import SeamReport
from composecli.commands.sequential import check_sequential
from composecli.commands.session import Session
from composecli.core.blueprint import Mode


def check_pairs(request: CheckRequest, session: Session, parts: OpenedModels) -> Composition:
    """Judge each ordered pair, in the order of the models.

    Each contract is inferred once. There is no blueprint: pairs cannot be joined.
    """
    contracts = tuple(session.map(session.infer, parts))
    pairs = list(permutations(parts, 2))

    def judge(number: int) -> tuple[SeamReport, ...]:
        if number % len(parts) == 0:
            session.progress(f"checking pairs: {number} of {len(pairs)}")
        pair = pairs[number]
        names = tuple(part.name for part in pair)
        chain = replace(request, models=names, mode=Mode.SEQUENTIAL)
        return check_sequential(chain, session, pair).seams

    seams = list[SeamReport]()
    for pair_seams in session.map(judge, range(len(pairs))):
        seams += pair_seams
    return Composition(contracts, tuple(seams), None, None, None)
