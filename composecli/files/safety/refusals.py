"""Refusals: problems that explain why a file is not loaded unless the user trusts it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from composecli.core.errors import Problem
from composecli.core.rules import Rule
from composecli.files.checkpoint import Checkpoint
from composecli.files.safety.extension_ops import importing, is_extension, libraries_of
from composecli.files.safety.remedies import for_checkpoint, trust

MAX_SHOWN = 6
MAX_SHOWN_LENGTH = 60
MAX_SUGGESTED_OPS = 12

_FETCH_AGAIN = ("download or save it again",)


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason not to run a program; `op` if it is an operator, which the user can allow by name.

    The text may quote the file. It is shown, and never interpreted.
    """

    text: str
    op: str | None = None


def start_of(value: object) -> str:
    """Return the start of a value's text, for a reason that quotes it."""
    return str(value)[:MAX_SHOWN_LENGTH]


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
    path: str,
    kind: str,
    reasons: tuple[Reason, ...],
    allowed_ops: frozenset[str],
    *,
    imports: bool = True,
) -> Problem | None:
    """Return why a program is refused, None if the only reasons are ops that the user allows.

    `imports`: the user has imported modules for the program, so that none need be suggested.
    """
    reasons = tuple(reason for reason in reasons if reason.op not in allowed_ops)
    if not reasons:
        return None
    ops = _ops_alone(reasons)
    extension_ops = [reason.op for reason in reasons if reason.op and is_extension(reason.op)]
    libraries: tuple[str, ...] = ()
    if not imports:
        libraries = libraries_of(extension_ops, path)
    texts = shown(tuple(reason.text for reason in reasons))
    trusting = trust(path)
    importing_all = importing(libraries)
    remedies = [replace(trusting, words=(*trusting.words, *importing_all.words))]
    if libraries and len(extension_ops) == len(reasons):
        title = f"the {kind} calls an op of an extension library that is not loaded"
        remedies.insert(0, importing(libraries, ops))
        return Problem(Rule.PACKAGE_MISSING, title, path, texts, remedies=tuple(remedies))
    if 0 < len(ops) <= MAX_SUGGESTED_OPS:
        effect = "allows what it uses, and nothing else"
        remedies.append(replace(importing(libraries, ops), effect=effect))
    title = f"the {kind} contains code that needs trust to run"
    return Problem(Rule.PROGRAM_NOT_TRUSTED, title, path, texts, remedies=tuple(remedies))


def _ops_alone(reasons: tuple[Reason, ...]) -> tuple[str, ...]:
    """Return the ops that are the reasons; none if there is another reason."""
    ops = dict[str, None]()
    for reason in reasons:
        if reason.op is None:
            return ()
        ops[reason.op] = None
    return tuple(ops)


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
