"""Text for terminals: findings and problems as styled lines, and names from files made harmless."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from rich.cells import cell_len

from composecli.core.errors import Problem
from composecli.core.findings import Finding, Side
from composecli.report.bounds import MAX_SHOWN_LINES, bounded
from composecli.report.harmless import sanitize

MAX_NAME_CHARS = 20
# A path has up to 4096 bytes, and a command may name several.
MAX_COMMAND_CHARS = 20_000
MIN_WRAP_COLUMNS = 40
_INDENT = "  "
_NOT_SHOWN = (
    "rename the files whose names cannot be shown as they are (--format json has the command)"
)


class Line(NamedTuple):
    """One line of output; `style` is a key of the styles of the format."""

    style: str
    text: str


def shorten_path(path: str) -> str:
    """Return the end of a long path: tables have 80 columns, and findings show the whole path."""
    if len(path) <= MAX_NAME_CHARS:
        return path
    end = path[-(MAX_NAME_CHARS - 1) :]
    return f"…{end}"


def format_finding(
    finding: Finding, width: int, *, with_fix: bool = True, label: str | None = None
) -> Iterator[Line]:
    """Yield the title, the sides one below the other, the notes and the fix.

    `label` replaces the severity: a seam that was bridged does not have an error any more.
    """
    label = label or str(finding.severity)
    yield from _format_title(label, finding.code, finding.title, width)
    yield from _format_sides(finding, max(MIN_WRAP_COLUMNS, width))
    for note in bounded(finding.notes):
        yield from _format_note(note, width)
    if with_fix:
        for fix in finding.fixes:
            yield from _format_command(fix.command, fix.effect)
        for help in bounded(finding.help):
            yield from _format_text("help", help, width)


def format_problem(problem: Problem, width: int) -> Iterator[Line]:
    """Yield the title, the place, the notes, the commands to run instead, and the advice."""
    yield from _format_title("error", problem.code, problem.title, width)
    if problem.where is not None:
        where = sanitize(problem.where)
        yield Line("side", f"{_INDENT}{where}")
    for note in bounded(problem.notes):
        yield from _format_note(note, width)
    for remedy in problem.remedies[:MAX_SHOWN_LINES]:
        effects = tuple(filter(None, [remedy.effect]))
        yield from _format_command(remedy.text, effects)
    for help in bounded(problem.help):
        text = sanitize(help)
        yield Line("help", f"{_INDENT}help: {text}")


def _format_command(command: str, effects: tuple[str, ...]) -> Iterator[Line]:
    """Yield a command to run, in one line so that it can be copied, and its effects below it.

    A command with characters that cannot be shown would name another file.
    """
    shown = sanitize(command, MAX_COMMAND_CHARS)
    if shown != command:
        yield Line("help", f"{_INDENT}help: {_NOT_SHOWN}")
        return
    yield Line("help", f"{_INDENT}help: {command}")
    for effect in bounded(effects):
        yield Line("note", f"{_INDENT}      {sanitize(effect)}")


def _format_title(label: str, code: str, title: str, width: int) -> Iterator[Line]:
    """Yield the title, wrapped; its style is the label, and later lines are indented."""
    text = f"{label}[{code}]: {sanitize(title)}"
    columns = max(MIN_WRAP_COLUMNS, width)
    lines = textwrap.wrap(
        text,
        columns,
        subsequent_indent=_INDENT * 2,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        yield Line(label, line)


def _format_note(text: str, width: int) -> Iterator[Line]:
    """Yield a note, wrapped."""
    return _format_text("note", text, width)


def _format_text(label: str, text: str, width: int) -> Iterator[Line]:
    """Yield a text behind its label, wrapped; later lines are indented to the text of the first."""
    first = f"{_INDENT}{label}: "
    others = " " * len(first)
    columns = max(MIN_WRAP_COLUMNS, width)
    lines = textwrap.wrap(
        sanitize(text),
        columns,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        yield Line(label, line)


def _format_sides(finding: Finding, width: int) -> Iterator[Line]:
    """Yield the sides with models and ports aligned, and mark the axis in the last one that has it.

    a.pt  output 0  float32[N, 5]
    b.pt  input     float32[N, 3]
                               ^ axis 1

    If that is wider than the screen, the names of the models get lines of their own: a terminal
    would break the lines, and the mark would be below something else.
    """
    models = [sanitize(side.model) for side in finding.sides]
    ports = [sanitize(side.port) for side in finding.sides]
    texts = [sanitize(side.text) for side in finding.sides]
    model_width = max(map(cell_len, models), default=0)
    port_width = max(map(cell_len, ports), default=0)
    text_width = max(map(cell_len, texts), default=0)
    start = len(_INDENT) + model_width + 2
    is_stacked = start + port_width + 2 + text_width > width
    if is_stacked:
        start = 2 * len(_INDENT)
    mark = None
    for side, model, port, text in zip(finding.sides, models, ports, texts, strict=True):
        if is_stacked:
            yield Line("side", f"{_INDENT}{model}")
            beginning = " " * start
        else:
            beginning = f"{_INDENT}{_pad(model, model_width)}  "
        line = f"{beginning}{_pad(port, port_width)}  {text}"
        if line.strip():
            yield Line("side", line.rstrip())
        mark = _format_mark(side, finding.axis, start + port_width + 2, width) or mark
    if mark is not None:
        yield mark


def _pad(text: str, columns: int) -> str:
    """Return the text with spaces up to this number of columns; a wide character takes two."""
    return text + " " * (columns - cell_len(text))


def _format_mark(side: Side, axis: int | None, column: int, width: int) -> Line | None:
    """Return the line that marks the axis below a side whose text starts at `column`.

    If the axis is beyond the width of the screen, the line names the dim instead.
    """
    if axis is None or side.dims is None or axis >= len(side.dims):
        return None
    # The text is `float32[N, 5]`: a bracket follows the dtype, and a comma and a space each dim.
    start = column + len(side.dtype) + 1
    for dim in side.dims[:axis]:
        start += len(dim) + 2
    name = f"axis {axis}"
    marked = side.dims[axis]
    length = max(1, len(marked))
    if start + length + 1 + len(name) > width:
        margin = " " * column
        return Line("mark", f"{margin}{name}: {sanitize(marked)}")
    margin = " " * start
    carets = "^" * length
    return Line("mark", f"{margin}{carets} {name}")
