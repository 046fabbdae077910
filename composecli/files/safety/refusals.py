"""Refusals: problems that explain why a file is not loaded unless the user trusts it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from composecli.core.errors import Problem, Remedy
from composecli.core.rules import Rule
from composecli.files.checkpoint import Checkpoint
from composecli.files.safety.remedies import for_checkpoint, trust

MAX_SHOWN = 6
MAX_SUGGESTED_OPS = 12

_FETCH_AGAIN = ("download or save it again",)


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason not to run a program; `op` if it is an operator, which the user can allow by name.

    The text may quote the file. It is shown, and never interpreted.
    """

    text: str
    op: str | None = None


def damaged(path: str, *notes: str, title: str = "the archive is damaged") -> Problem:
    """Return the problem of an archive that is not as it was written; the notes show that."""
    return Problem(Rule.TRUNCATED_ARCHIVE, title, path, notes, _FETCH_AGAIN)


def of_checkpoint(path: str, checkpoint: Checkpoint) -> Problem | None:
    """Return why a pickled module is refused, None if it consists of torch.nn's own classes."""
    if checkpoint.untrusted:
        return Problem(
            Rule.IMPORTS_NOT_TRUSTED,
            "the pickle imports code from outside torch.nn",
            path,
            shown(checkpoint.untrusted),
            ("save it with torch.jit.script(model).save(path) or torch.export.save",),
            remedies=for_checkpoint(path, checkpoint),
        )
    if checkpoint.hooks:
        return of_overrides(path, checkpoint.hooks)
    return None


def of_overrides(path: str, hooks: tuple[str, ...]) -> Problem:
    """Return why a pickled module with hooks, or with code in place of its class's, is refused."""
    return Problem(
        Rule.HOOKS_NOT_TRUSTED,
        "the pickled module carries code in addition to its classes",
        path,
        shown(hooks),
        remedies=(trust(path),),
    )


def of_program(
    path: str, kind: str, reasons: tuple[Reason, ...], allowed_ops: frozenset[str]
) -> Problem | None:
    """Return why a program is refused, None if the only reasons are ops that the user allows."""
    reasons = tuple(reason for reason in reasons if reason.op not in allowed_ops)
    if not reasons:
        return None
    title = f"the {kind} contains code that needs trust to run"
    texts = tuple(reason.text for reason in reasons)
    remedies = (trust(path), *_allowing(reasons))
    return Problem(Rule.PROGRAM_NOT_TRUSTED, title, path, shown(texts), remedies=remedies)


def _allowing(reasons: tuple[Reason, ...]) -> Iterator[Remedy]:
    """Yield the remedy that allows the ops by name, if a few ops are the only reasons."""
    ops = list[str]()
    for reason in reasons:
        if reason.op is None:
            return
        if reason.op not in ops:
            ops.append(reason.op)
    if len(ops) > MAX_SUGGESTED_OPS:
        return
    words = list[str]()
    for op in ops:
        words += ["--allow-op", op]
    yield Remedy(tuple(words), effect="allows what it uses, and nothing else")


def of_records(path: str, messages: tuple[str, ...]) -> Problem | None:
    """Return the problem of records that do not fit their tensors, None without messages.

    Such an archive is damaged, and trusting it does not help.
    """
    if not messages:
        return None
    return Problem(
        Rule.RECORDS_DO_NOT_FIT,
        "the archive's records do not fit its tensors",
        path,
        shown(messages),
        _FETCH_AGAIN,
    )


def shown(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first few lines, and a last one that counts the others."""
    hidden = len(lines) - MAX_SHOWN
    if hidden <= 0:
        return lines
    return (*lines[:MAX_SHOWN], f"and {hidden} more")
