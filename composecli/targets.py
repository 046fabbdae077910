"""Targets: each MODEL of a command with the file behind it, judged from its bytes before anything loads it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from composecli.errors import CouldNotAttempt, Problem
from composecli.files.sniff import ModelFile, WeightsFile, sniff, weights_alone
from composecli.protocol import ModelKind
from composecli.reference import FactoryReference, FileReference, Reference, parse_reference

MOST_IMPORTS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Target:
    """`file` is None for a factory, whose file holds weights alone."""

    reference: Reference
    kind: ModelKind
    file: ModelFile | None

    @property
    def name(self) -> str:
        return self.reference.name

    @property
    def path(self) -> str:
        return self.reference.path


def identify(text: str, *, trusted: bool) -> Target:
    """The target that a MODEL argument names.

    Raises:
        CouldNotAttempt: there is no model, or it would run what is not trusted.
    """
    reference = FileReference(text) if os.path.exists(text) else parse_reference(text)
    found = sniff(reference.path)
    if isinstance(found, Problem):
        raise CouldNotAttempt(found)
    if isinstance(reference, FactoryReference):
        if isinstance(found, ModelFile):
            raise CouldNotAttempt(
                Problem(
                    "CC908", f"the file holds a whole model ({found.kind}), not weights", reference.path,
                    help=(f"name the file alone: {reference.path}",),
                )
            )  # fmt: skip
        return Target(reference, ModelKind.FACTORY, None)
    if isinstance(found, WeightsFile):
        raise CouldNotAttempt(weights_alone(found))
    if not trusted:
        _refuse_untrusted(found)
    return Target(reference, found.kind, found)


def _refuse_untrusted(file: ModelFile) -> None:
    if file.checkpoint is None:
        return
    names = file.checkpoint.untrusted
    if names:
        more = len(names) - MOST_IMPORTS_SHOWN
        rows = names[:MOST_IMPORTS_SHOWN] + ((f"and {more} more",) if more > 0 else ())
        raise CouldNotAttempt(
            Problem(
                "CC909", "the pickle imports what is not torch.nn's own", file.path,
                tuple(f"it would import {row}" if not row.startswith("and ") else row for row in rows),
                ("--trust runs it, if you know where the file comes from",
                 "or save it with torch.jit.script(model).save(path) or torch.export.save"),
            )
        )  # fmt: skip
    if file.checkpoint.hooks:
        raise CouldNotAttempt(
            Problem(
                "CC910", "the pickled module carries code of its own beside its classes", file.path,
                file.checkpoint.hooks[:MOST_IMPORTS_SHOWN],
                ("--trust keeps it, if you know where the file comes from",),
            )
        )  # fmt: skip
