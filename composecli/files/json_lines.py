"""Lines of a JSON text: where a value is, for messages about files that people write."""

from __future__ import annotations

import json
from collections.abc import Iterator

from composecli.core.documents import Place

_DECODER = json.JSONDecoder()
_SPACES = " \t\r\n"


def line_of(text: str, place: Place) -> int:
    """Return the number of the line of a value in a valid JSON text, counted from 1.

    If there is no such place, it is the line of the innermost object or list on the way to it.
    """
    position = _after_spaces(text, 0)
    for step in place:
        inner = dict(_values(text, position))
        if step not in inner:
            break
        position = inner[step]
    return text.count("\n", 0, position) + 1


def _values(text: str, start: int) -> Iterator[tuple[str | int, int]]:
    """Yield each key or number of an object or list, with the position of its value."""
    if text[start] not in "{[":
        return
    is_object = text[start] == "{"
    position = _after_spaces(text, start + 1)
    number = 0
    while text[position] not in "}]":
        step: str | int = number
        if is_object:
            step, end = _DECODER.raw_decode(text, position)
            position = _after_spaces(text, _after_spaces(text, end) + len(":"))
        yield step, position
        _, end = _DECODER.raw_decode(text, position)
        position = _after_spaces(text, end)
        if text[position] == ",":
            position = _after_spaces(text, position + 1)
        number += 1


def _after_spaces(text: str, position: int) -> int:
    """Return the position of the next character that is no space."""
    while text[position] in _SPACES:
        position += 1
    return position
