"""Hints: knowledge of a model before any forward runs."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.contract import Contract
from composecli.core.facts import ModelFacts
from composecli.core.pytree import Call, KeyPath
from composecli.inference.candidates import Candidate


@dataclass(frozen=True, slots=True)
class Hints:
    """Knowledge of a model before any forward runs.

    `stated` comes from the user. It excludes all other candidates: if it is rejected, nothing
    else is tried. `partial` has some of the arguments, by name, and the others are found.
    `exported` is the contract that an exported program records, `traced` the
    example that a trace records, and `given` the output of a producer that this model should
    accept.
    """

    facts: ModelFacts
    stated: Candidate | None = None
    exported: Contract | None = None
    traced: Call | None = None
    given: Call | None = None
    partial: Candidate | None = None


def argument_name(facts: ModelFacts, call: Call, path: KeyPath) -> str | None:
    """Return the name of the argument that contains the tensor at `path`; None if unknown."""
    number = path[0]
    assert isinstance(number, int)
    argument = call.arguments[number]
    if argument.name is not None:
        return argument.name
    if number < len(facts.arguments):
        return facts.arguments[number].name
    return None
