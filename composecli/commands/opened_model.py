"""One model of the command, once the worker has opened it."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.commands.resolve import Target
from composecli.core.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """One model of the command, opened. `explored` is the handle that inference runs, `real` the one that decides."""

    target: Target
    facts: ModelFacts
    explore_handle: int
    handle: int

    @property
    def name(self) -> str:
        return self.target.name
