"""Text from files and names of files, made harmless for terminals and for logs of CI."""

from __future__ import annotations

import unicodedata

MAX_TEXT_CHARS = 2000
_REPLACEMENT = "\ufffd"
# Unicode categories that change how a terminal shows the text around them: control and format
# characters, surrogates, private use, line and paragraph separators.
_UNSAFE_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))


def sanitize(text: str, max_chars: int = MAX_TEXT_CHARS) -> str:
    """Return text from a file as one short line without characters that affect a terminal."""
    characters = list[str]()
    for character in text[:max_chars]:
        if unicodedata.category(character) in _UNSAFE_CATEGORIES:
            characters.append(_REPLACEMENT)
        else:
            characters.append(character)
    if len(text) > max_chars:
        characters[-1] = "…"
    return "".join(characters)
