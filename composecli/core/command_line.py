"""Command lines that messages suggest: every name in them is one word of a POSIX shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence

PROGRAM = "composecli"
_TAKE_FILES = ("--trust", "--import")


def command_line(words: Iterable[str]) -> str:
    """Return words as one line that a shell splits into the same words."""
    return shlex.join(words)


def one_word(text: str) -> str:
    """Return a text as a shell has to read it to pass it on as one word."""
    return shlex.quote(text)


def file_word(path: str) -> str:
    """Return a path as a word that is no option, whatever it begins with: `./-x.pt`."""
    if path.startswith("-"):
        return f"./{path}"
    return path


def option_words(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield options with their values, none of which can be read as another option."""
    for name, value in pairs:
        if not value.startswith("-"):
            yield from (name, value)
        elif name in _TAKE_FILES:
            yield from (name, file_word(value))
        else:
            yield f"{name}={value}"


def pairs_of(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return alternating names and values of options as pairs."""
    return list(zip(words[::2], words[1::2], strict=True))
