"""The screen that tables are printed on: readable at 80 columns and in a dumb terminal."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from composecli.core.findings import Verdict
from composecli.report.harmless import sanitize
from composecli.report.text import Line

DEFAULT_COLUMNS = 80
MIN_COLUMNS = 40
_HANGING_INDENT = 10
VERDICT_STYLES = {
    Verdict.COMPATIBLE: "bold green",
    Verdict.BRIDGEABLE: "bold yellow",
    Verdict.INCOMPATIBLE: "bold red",
    Verdict.UNKNOWN: "bold yellow",
}
_LINE_STYLES = {
    "error": "bold red",
    "bridged": "bold yellow",
    "unknown": "bold yellow",
    "warning": "bold yellow",
    "note": "cyan",
    "help": "green",
    "mark": "bold red",
}


class Screen(Console):
    """A rich console that prints text as it is, without markup."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__(
            file=file,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
            width=_columns(file),
            _environ=_environment(),
        )

    def on_broken_pipe(self) -> None:
        """Leave it to the caller: rich would exit with code 1, which means incompatible here.

        Raises:
            BrokenPipeError: always.
        """
        raise BrokenPipeError

    def print_lines(self, lines: Iterable[Line]) -> None:
        """Print lines in their styles, none of them wrapped."""
        for style, line in lines:
            self.print(Text(line, style=_LINE_STYLES.get(style, "")), soft_wrap=True)

    def print_wrapped(self, text: str) -> None:
        """Print a text of a file, with a hanging indent."""
        own_indent = len(text) - len(text.lstrip())
        indent = " " * (own_indent + _HANGING_INDENT)
        lines = textwrap.wrap(
            sanitize(text), self.width, subsequent_indent=indent, break_long_words=False
        )
        self.print_lines(Line("", line) for line in lines)


def _environment() -> dict[str, str]:
    """Return the variables that rich may read: it fails on a width or height that is no number."""
    unwanted = ("COLUMNS", "LINES")
    return {name: value for name, value in os.environ.items() if not name.endswith(unwanted)}


def _columns(file: IO[str]) -> int:
    """Return the width: what COLUMNS says, or that of the terminal, or 80.

    Shells set COLUMNS to 0 if they do not know the width, and so do scripts by mistake.
    """
    stated = os.environ.get("COLUMNS", "")
    if stated.isdecimal() and int(stated) > 0:
        return max(MIN_COLUMNS, int(stated))
    if file.isatty():
        return _terminal_columns(file)
    return DEFAULT_COLUMNS


def _terminal_columns(file: IO[str]) -> int:
    """Return the width of a terminal, which may not know it."""
    try:
        columns = os.get_terminal_size(file.fileno()).columns
    except OSError:
        columns = 0
    if columns == 0:
        return DEFAULT_COLUMNS
    return max(MIN_COLUMNS, columns)


def new_table() -> Table:
    """Return an empty table with as few lines as possible, in ASCII for a dumb terminal."""
    lines = box.SIMPLE_HEAD
    if os.environ.get("TERM") == "dumb":
        lines = box.ASCII2
    return Table(box=lines, pad_edge=False, expand=False)


def verdict_text(verdict: Verdict) -> Text:
    """Return the word for the verdict in its color."""
    return Text(str(verdict), VERDICT_STYLES[verdict])
