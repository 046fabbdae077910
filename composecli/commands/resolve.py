"""Targets: each MODEL of a command with the file behind it, judged from its bytes before anything loads it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from composecli.commands.trust import Trust
from composecli.core.errors import CouldNotAttempt, Problem
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
    """`file` is None for a factory, whose file holds weights alone. `trust` where the user vouches for the file."""

    reference: Reference
    kind: ModelKind
    file: ModelFile | None
    trust: Trust | None = None

    @property
    def name(self) -> str:
        return self.reference.name

    @property
    def path(self) -> str:
        return self.reference.path


def identify(
    text: str, trusts: tuple[Trust, ...] = (), allowed_ops: tuple[str, ...] = ()
) -> Target:
    """The target that a MODEL argument names.

    Raises:
        CouldNotAttempt: there is no model, or it would run what is not trusted.
    """
    reference = FileReference(text) if os.path.exists(text) else parse_reference(text)
    found = sniff(reference.path)
    trust = next((trust for trust in trusts if trust.covers(reference.path)), None)
    if isinstance(found, Problem):
        raise CouldNotAttempt(found)
    if isinstance(reference, FactoryReference):
        if isinstance(found, ModelFile):
            raise CouldNotAttempt(
                Problem(
                    Rule.NOT_A_MODEL, f"the file holds a whole model ({found.kind}), not weights", reference.path,
                    help=(f"name the file alone: {reference.path}",),
                )
            )  # fmt: skip
        _refuse(found.refusal() if trust is None else None)
        return Target(reference, ModelKind.FACTORY, None, trust)
    if isinstance(found, WeightsFile):
        raise CouldNotAttempt(weights_alone(found))
    _refuse(found.refusal(frozenset(allowed_ops)) if trust is None else None)
    return Target(reference, found.kind, found, trust)


def _refuse(refusal: Problem | None) -> None:
    if refusal is not None:
        raise CouldNotAttempt(refusal)
