"""Opened models: a model of the command, once the worker has loaded it."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.commands.resolve import Target
from composecli.core.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model that the worker has loaded.

    `handle` is the worker's number for the model on the device whose forward decides. Inference
    uses `explore_handle`, which is another one if it runs on the meta device.
    """

    target: Target
    facts: ModelFacts
    explore_handle: int
    handle: int

    @property
    def name(self) -> str:
        """The MODEL argument."""
        return self.target.name

    @property
    def has_module(self) -> bool:
        """Whether it computes: a contract file does not."""
        return self.target.kind.traits.has_module


OpenedModels = tuple[OpenedModel, ...]


def all_have_modules(parts: OpenedModels) -> bool:
    """Return whether none of the models is a contract file."""
    return all(part.has_module for part in parts)
