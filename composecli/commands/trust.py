"""Trust: which files a user vouches for, by name or by content."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_PINNED = re.compile(r"(?P<path>.+)@sha256:(?P<digest>[0-9a-fA-F]{64})", re.DOTALL)
_OP = re.compile(r"\w+::\w+")


@dataclass(frozen=True, slots=True)
class Trust:
    """A file that may run whatever it holds; with `sha256`, where its content is that and no other."""

    path: str
    sha256: str | None = None

    def covers(self, path: str) -> bool:
        return os.path.realpath(self.path) == os.path.realpath(path)


def parse_trust(text: str) -> Trust:
    """`a.pt`, or `a.pt@sha256:` and 64 hexadecimal digits.

    Raises:
        ValueError: it pins to something else.
    """
    found = _PINNED.fullmatch(text)
    if found is not None:
        return Trust(found["path"], found["digest"].lower())
    if "@sha256:" in text:
        raise ValueError("behind @sha256: stand 64 hexadecimal digits")
    return Trust(text)


def parse_op(text: str) -> str:
    """`aten::from_file`.

    Raises:
        ValueError: it is no name of an op.
    """
    if not _OP.fullmatch(text):
        raise ValueError(f"no op is called {text} (aten::from_file)")
    return text
