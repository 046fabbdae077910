"""JSON that every reader understands in the same way; anything else is refused.

Python's reader takes more than JSON: other encodings, a mark of the byte order, the last of several
equal keys, NaN. Other readers, and torch, which decodes UTF-8, would see another document.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

MAX_DIGITS = 40

_LONG_NUMBER = re.compile(rf"[\s\[:,-]\d{{{MAX_DIGITS + 1}}}")
# A character that is written by its code: an odd number of backslashes stands before the code.
_NULL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: if it is not JSON, or could be read in another way.
        RecursionError: if it is nested too deeply.
    """
    text = data
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if _NULL.search(text):
        raise ValueError("it has a text with a null character")
    parse_int: Any = None
    if _LONG_NUMBER.search(text):
        parse_int = _parse_int
    value = json.loads(
        text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=parse_int
    )
    if _SURROGATE.search(text):
        _refuse_lone_surrogates(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object with these keys, each of which must be there once."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same key twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    """Refuse `NaN` and the infinities, which Python writes and JSON does not have."""
    raise ValueError(f"it has the number {name}")


def _parse_int(text: str) -> int:
    """Return an integer of a reasonable length."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"it has a number of {len(text):,} digits")
    return int(text)


def _refuse_lone_surrogates(value: Any) -> None:
    """Refuse half a character: the text could not be written again."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("it has a text with half a character") from None
