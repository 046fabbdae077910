"""Lines of a TOML text: where a value is, for messages about files that people write."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from composecli.core.documents import Place

# Alternatives in the order in which they are tried: long strings start like short ones.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|#[^\n]*"
    r"|[\[\]{},\n]"
    r"|[^\"'#\[\]{},\n]+",
    re.DOTALL,
)


@dataclass
class _Statement:
    """A header or an assignment, without its comments, and the line where it starts.

    `item_lines` are those of the items of a list that is the value. `depth` counts the brackets
    that are open.
    """

    line: int
    parts: list[str] = field(default_factory=list)
    item_lines: list[int] = field(default_factory=list)
    depth: int = 0
    _expects_item: bool = False

    @property
    def text(self) -> str:
        """The text of the statement."""
        return "".join(self.parts).strip()

    def add(self, token: str, line: int) -> None:
        """Add the next token, which starts in a line."""
        is_between_items = token.isspace() or token in ",]}"
        if self.depth == 1 and self._expects_item and not is_between_items:
            self.item_lines.append(line)
            self._expects_item = False
        if token in "[{":
            self.depth += 1
        elif token in "]}":
            self.depth -= 1
        if self.depth == 1 and token in "[,":
            self._expects_item = True
        self.parts.append(token)


class Lines:
    """The lines of the tables and values of a valid TOML text, counted from 1."""

    def __init__(self, text: str) -> None:
        self._lines = dict[Place, int]()
        for place, line in _places(text):
            self._lines.setdefault(place, line)

    def of(self, place: Place) -> int:
        """Return the line of a value; of the innermost table on the way if there is none."""
        for end in range(len(place), 0, -1):
            line = self._lines.get(place[:end])
            if line is not None:
                return line
        return 1


def _places(text: str) -> Iterator[tuple[Place, int]]:
    """Yield the place of each table and each value, with its line."""
    counts = Counter[Place]()
    table: Place = ()
    for statement in _statements(text):
        if not statement.text.startswith("["):
            yield from _places_of_assignment(statement, table)
            continue
        keys = _header(statement.text)
        table = _numbered(keys, counts)
        if statement.text.startswith("[["):
            yield table, statement.line
            table = (*table, counts[keys])
            counts[keys] += 1
        yield table, statement.line


def _places_of_assignment(statement: _Statement, table: Place) -> Iterator[tuple[Place, int]]:
    """Yield the place of the value, of those inside it, and of the items of a list."""
    for path, value in _values(tomllib.loads(statement.text)):
        place = (*table, *path)
        yield place, statement.line
        if isinstance(value, list) and len(value) == len(statement.item_lines):
            for number, line in enumerate(statement.item_lines):
                yield (*place, number), line


def _statements(text: str) -> Iterator[_Statement]:
    """Yield each header and each assignment."""
    statement = _Statement(1)
    line = 1
    for token in _TOKEN.findall(f"{text}\n"):
        if token == "\n" and statement.depth == 0:
            if statement.text:
                yield statement
            statement = _Statement(line + 1)
        elif not token.startswith("#"):
            statement.add(token, line)
        line += token.count("\n")


def _header(statement: str) -> Place:
    """Return the keys of a header: `[models.head]` leads to `("models", "head")`."""
    keys = list[str]()
    value: Any = tomllib.loads(statement)
    while value:
        if isinstance(value, list):
            value = value[0]
            continue
        ((key, value),) = value.items()
        keys.append(key)
    return tuple(keys)


def _numbered(keys: Place, counts: Counter[Place]) -> Place:
    """Return the place of a table: inside a list of tables, it belongs to the last one."""
    place: Place = ()
    for end in range(1, len(keys)):
        place = (*place, keys[end - 1])
        if counts[keys[:end]]:
            place = (*place, counts[keys[:end]] - 1)
    return (*place, keys[-1])


def _values(value: Any) -> Iterator[tuple[Place, Any]]:
    """Yield each value in a table, and in the tables inside it, with its keys."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (key,), inner
            for place, innermost in _values(inner):
                yield (key, *place), innermost
