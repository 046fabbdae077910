"""Text that came from files, made harmless and short before any terminal or log sees it."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator

from composecli.core.errors import Problem
from composecli.core.findings import Finding

LONGEST = 2000
INDENT = "  "
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))


def plain(text: str, longest: int = LONGEST) -> str:
    """The text in one line, with control characters, direction overrides and surrogates replaced."""
    clean = "".join("\ufffd" if unicodedata.category(char) in _UNSAFE else char for char in text)
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"


Line = tuple[str, str]


def finding_lines(
    finding: Finding, width: int, *, with_fix: bool = True, label: str | None = None
) -> Iterator[Line]:
    """A finding as styled lines: the problem, both sides lined up, the facts, the fix.

    `label` stands in the place of the severity: a seam that was bridged has no error left.
    """
    yield from _title(label or str(finding.severity), finding.code, finding.title, width)
    yield from _sides(finding)
    for note in finding.notes:
        yield from _labelled("note", note, width)
    if finding.fix is not None and with_fix:
        yield "help", f"{INDENT}help: {plain(finding.fix.command)}"
        for effect in finding.fix.effect:
            yield "note", f"{INDENT}      {plain(effect)}"


def problem_lines(problem: Problem, width: int) -> Iterator[Line]:
    yield from _title("error", problem.code, problem.title, width)
    if problem.where is not None:
        yield "side", f"{INDENT}{plain(problem.where)}"
    for note in problem.notes:
        yield from _labelled("note", note, width)
    for help in problem.help:
        yield "help", f"{INDENT}help: {plain(help)}"


def _title(severity: str, code: str, title: str, width: int) -> Iterator[Line]:
    text = f"{severity}[{code}]: {plain(title)}"
    for line in textwrap.wrap(
        text, max(40, width), subsequent_indent=INDENT * 2, break_long_words=False
    ):
        yield severity, line


def _labelled(label: str, text: str, width: int) -> Iterator[Line]:
    first = f"{INDENT}{label}: "
    rest = " " * len(first)
    lines = textwrap.wrap(
        plain(text), max(40, width), initial_indent=first, subsequent_indent=rest, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    for line in lines:
        yield label, line


def _sides(finding: Finding) -> Iterator[Line]:
    sides = finding.sides
    models = max((len(plain(side.model)) for side in sides), default=0)
    ports = max((len(plain(side.port)) for side in sides), default=0)
    marked = None
    for side in sides:
        head = f"{INDENT}{plain(side.model):<{models}}  {plain(side.port):<{ports}}"
        yield "side", f"{head}  {plain(side.text)}".rstrip()
        if finding.axis is not None and side.dims is not None and finding.axis < len(side.dims):
            marked = len(head) + 2, side
    if marked is not None and finding.axis is not None:
        start, side = marked
        assert side.dims is not None
        before = len(side.dtype) + 1 + sum(len(dim) + 2 for dim in side.dims[: finding.axis])
        mark = "^" * max(1, len(side.dims[finding.axis]))
        yield "mark", f"{' ' * (start + before)}{mark} axis {finding.axis}"
