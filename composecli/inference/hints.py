"""Clues: what is known of a model before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.contract import Contract
from composecli.core.facts import ModelFacts
from composecli.core.pytree import Call, KeyPath
from composecli.inference.candidates import Candidate


@dataclass(frozen=True, slots=True)
class Hints:
    """What is known before anything runs. `stated` stands alone: where it is refused nothing else is tried."""

    facts: ModelFacts
    stated: Candidate | None = None
    exported: Contract | None = None
    traced: Call | None = None
    given: Call | None = None


def argument_name(facts: ModelFacts, call: Call, path: KeyPath) -> str | None:
    number = path[0]
    assert isinstance(number, int)
    argument = call.arguments[number]
    if argument.name is not None:
        return argument.name
    return facts.arguments[number].name if number < len(facts.arguments) else None
