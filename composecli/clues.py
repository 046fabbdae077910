"""Clues: what is known of a model before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.contract import Contract
from composecli.propose import Proposal
from composecli.protocol import ModelFacts
from composecli.trees import Call, Path


@dataclass(frozen=True, slots=True)
class Clues:
    """What is known before anything runs. `stated` stands alone: where it is refused nothing else is tried."""

    facts: ModelFacts
    stated: Proposal | None = None
    exported: Contract | None = None
    traced: Call | None = None
    given: Call | None = None


def argument_name(facts: ModelFacts, call: Call, path: Path) -> str | None:
    number = path[0]
    assert isinstance(number, int)
    argument = call.arguments[number]
    if argument.name is not None:
        return argument.name
    return facts.arguments[number].name if number < len(facts.arguments) else None
