"""Refusals: why a file is not loaded unless it is trusted, as a problem that names what speaks against it."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.errors import Problem
from composecli.core.rules import Rule
from composecli.files.checkpoint import Checkpoint

MOST_SHOWN = 6
_AGAIN = ("fetch it or save it again",)


@dataclass(frozen=True, slots=True)
class Reason:
    """What speaks against running a program; `op` where it is one op, which can be allowed. The text may hold words of
    the file, and is never read for what it says."""

    text: str
    op: str | None = None


def damaged(path: str, *notes: str, title: str = "the archive is damaged") -> Problem:
    """An archive that is not what was written, with what shows that."""
    return Problem(Rule.TRUNCATED_ARCHIVE, title, path, notes, _AGAIN)


def of_checkpoint(path: str, checkpoint: Checkpoint) -> Problem | None:
    """A pickled module that imports, calls or carries more than torch.nn's own classes."""
    if checkpoint.untrusted:
        return Problem(
            Rule.IMPORTS_NOT_TRUSTED, "the pickle imports what is not torch.nn's own", path, shown(checkpoint.untrusted),
            (f"--trust {path} runs it, if you know where the file comes from",
             "or save it with torch.jit.script(model).save(path) or torch.export.save"),
        )  # fmt: skip
    return of_overrides(path, checkpoint.hooks) if checkpoint.hooks else None


def of_overrides(path: str, hooks: tuple[str, ...]) -> Problem:
    """A pickled module with code attached to it, or in the place of its class's own."""
    return Problem(
        Rule.HOOKS_NOT_TRUSTED, "the pickled module carries code of its own beside its classes", path, shown(hooks),
        (f"--trust {path} keeps it, if you know where the file comes from",),
    )  # fmt: skip


def of_program(
    path: str, kind: str, reasons: tuple[Reason, ...], also: frozenset[str]
) -> Problem | None:
    """A program that holds what is not on the list of what may run; `also` are ops that are allowed besides."""
    reasons = tuple(reason for reason in reasons if reason.op not in also)
    if not reasons:
        return None
    ops = tuple(dict.fromkeys(reason.op for reason in reasons if reason.op is not None))
    texts = tuple(reason.text for reason in reasons)
    allow = (
        (f"or {' '.join(f'--allow-op {op}' for op in ops[:3])}, if what it does is meant",)
        if ops
        else ()
    )
    return Problem(
        Rule.PROGRAM_NOT_TRUSTED, f"the {kind} holds what does not run without trust", path, shown(texts),
        (f"--trust {path} runs it, if you know where the file comes from", *allow),
    )  # fmt: skip


def of_records(path: str, misfits: tuple[str, ...]) -> Problem | None:
    """Records that are not as long as what lies in them: damage, trusted or not."""
    if not misfits:
        return None
    return Problem(
        Rule.RECORDS_DO_NOT_FIT,
        "the archive's records do not fit its tensors",
        path,
        shown(misfits),
        _AGAIN,
    )


def shown(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The first few lines, and how many more there are."""
    more = len(lines) - MOST_SHOWN
    return (*lines[:MOST_SHOWN], f"and {more} more") if more > 0 else lines
