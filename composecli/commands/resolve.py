"""Targets: each MODEL argument with the file behind it, scanned before anything loads it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from composecli.commands.requests import Options
from composecli.commands.trust import Trust
from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.model_ref import (
    FactoryReference,
    FileReference,
    ModelKind,
    Reference,
    parse_reference,
)
from composecli.core.rules import Rule
from composecli.files.sniff import ModelFile, WeightsFile, sniff, weights_alone


@dataclass(frozen=True, slots=True)
class Target:
    """A model that may be opened.

    `file` is None for a factory, whose file holds nothing but weights. `trust` is set if the user
    trusts the file.
    """

    reference: Reference
    kind: ModelKind
    file: ModelFile | None
    trust: Trust | None = None

    @property
    def name(self) -> str:
        """The MODEL argument."""
        return self.reference.name

    @property
    def path(self) -> str:
        """The file of the model, or of its weights."""
        return self.reference.path


def locate(text: str) -> Reference:
    """Return the reference of a MODEL argument: an existing file, or otherwise a factory."""
    if os.path.exists(text):
        return FileReference(text)
    return parse_reference(text)


def identify_all(models: tuple[str, ...], options: Options) -> tuple[Target, ...]:
    """Return the target of each MODEL argument of a command.

    Raises:
        CouldNotAttempt: as `identify` does.
    """
    targets = [identify(model, options.trust, options.allowed_ops) for model in models]
    return tuple(targets)


def identify(
    text: str, trusts: tuple[Trust, ...] = (), allowed_ops: tuple[str, ...] = ()
) -> Target:
    """Return the target that a MODEL argument names.

    Raises:
        CouldNotAttempt: if there is no model, or it needs trust that the user has not given.
    """
    reference = locate(text)
    sniffed = sniff(reference.path)
    if isinstance(sniffed, Problem):
        raise CouldNotAttempt(sniffed)
    trust = next((trust for trust in trusts if trust.covers(reference.path)), None)
    if isinstance(reference, FactoryReference):
        if isinstance(sniffed, ModelFile):
            raise CouldNotAttempt(_not_weights(sniffed))
        if trust is None:
            _refuse(sniffed.refusal())
        return Target(reference, ModelKind.FACTORY, None, trust)
    if isinstance(sniffed, WeightsFile):
        raise CouldNotAttempt(weights_alone(sniffed))
    if trust is None:
        _refuse(sniffed.refusal(frozenset(allowed_ops)))
    return Target(reference, sniffed.kind, sniffed, trust)


def _not_weights(file: ModelFile) -> Problem:
    """Return the problem of a factory whose weights file is a whole model."""
    title = f"the file contains a whole model ({file.kind}), not weights"
    remedies = (Remedy(model=file.path, effect="loads the model as it was saved"),)
    return Problem(Rule.NOT_A_MODEL, title, file.path, remedies=remedies)


def _refuse(refusal: Problem | None) -> None:
    """Raise the refusal, if there is one."""
    if refusal is not None:
        raise CouldNotAttempt(refusal)
