"""Documents: data that a person wrote, read key by key, with the place of each mistake."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from composecli.core.limits import shorten

# The keys and numbers that lead to a value: `("inputs", 0, "dims", 1)`.
Place = tuple[str | int, ...]

_KINDS = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


class InvalidDocument(ValueError):
    """A value of a document is wrong. The message is written for users.

    `place` leads to the value, or to the key if the key is wrong.
    """

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of a document, and the place where it is."""

    values: Mapping[str, Any]
    place: Place

    def allow(self, keys: Iterable[str]) -> None:
        """Refuse any key but these; the message suggests the nearest one.

        Raises:
            InvalidDocument: if there is another key.
        """
        allowed = tuple(keys)
        for key in self.values:
            if key not in allowed:
                message = f"there is no key {shorten(key)}{nearest(key, allowed)}"
                raise InvalidDocument((*self.place, key), message)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string.

        Raises:
            InvalidDocument: if it is anything else, or is missing and has no default.
        """
        return str(self._value(key, str, default))

    def integer(self, key: str, default: int | None = None) -> int:
        """Return an integer.

        Raises:
            InvalidDocument: if it is anything else, or is missing and has no default.
        """
        return int(self._value(key, int, default))

    def number(self, key: str) -> float:
        """Return a number.

        Raises:
            InvalidDocument: if it is anything else, or is missing.
        """
        value = self.values.get(key)
        if isinstance(value, float):
            return value
        return self.integer(key)

    def flag(self, key: str) -> bool:
        """Return true or false; false if there is no such key.

        Raises:
            InvalidDocument: if it is anything else.
        """
        return bool(self._value(key, bool, default=False))

    def texts(self, key: str) -> Iterator[tuple[Place, str]]:
        """Yield the strings of a list, each with its place; none if there is no such key.

        Raises:
            InvalidDocument: if it is no list, or holds anything else.
        """
        for place, item in self._items(key):
            yield place, str(_of_kind(item, str, place))

    def entries(self, key: str) -> Iterator[Entry]:
        """Yield the objects of a list; none if there is no such key.

        Raises:
            InvalidDocument: if it is no list, or holds anything else.
        """
        for place, item in self._items(key):
            yield Entry(_of_kind(item, dict, place), place)

    def _items(self, key: str) -> Iterator[tuple[Place, Any]]:
        """Yield the items of a list, each with its place."""
        for number, item in enumerate(self._value(key, list, [])):
            yield (*self.place, key, number), item

    def _value(self, key: str, kind: type, default: Any) -> Any:
        """Return the value of a key."""
        if key not in self.values:
            if default is None:
                raise InvalidDocument(self.place, f"the key {key} is missing")
            return default
        return _of_kind(self.values[key], kind, (*self.place, key))


def entry_of(value: Any, place: Place = ()) -> Entry:
    """Return a value as an object of a document.

    Raises:
        InvalidDocument: if it is anything else.
    """
    return Entry(_of_kind(value, dict, place), place)


def _of_kind(value: Any, kind: type, place: Place) -> Any:
    """Return the value if it is of this kind: a flag is no integer."""
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    # As the document writes it: null, and not None.
    shown = shorten(json.dumps(value, ensure_ascii=False, default=str), 40)
    raise InvalidDocument(place, f"{_KINDS[kind]} is expected, not {shown}")


def place_text(place: Place) -> str:
    """Return a place as people write it: `inputs[0].dims[1]`."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{shorten(step)}"
    return text.removeprefix(".")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a suggestion of the most similar known word, or the list of all if none is similar."""
    words = tuple(known)
    near = difflib.get_close_matches(word, words, 1)
    if near:
        return f"; did you mean {near[0]}?"
    return f" (use one of {', '.join(words)})"
