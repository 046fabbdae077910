"""Trust: the files that a user trusts, by name or by content."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from composecli.files.library_policies import LIBRARIES
from composecli.files.shards import shards_of

_PINNED = re.compile(r"(?P<path>.+)@sha256:(?P<digest>[0-9a-fA-F]{64})", re.DOTALL)
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_OP = re.compile(r"\w+::\w+")


@dataclass(frozen=True, slots=True)
class Trust:
    """A file that may run arbitrary code; if `sha256` is set, only with that content."""

    path: str
    sha256: str | None = None

    def covers(self, path: str) -> bool:
        """Return whether a path leads to the trusted file."""
        trusted = os.path.realpath(self.path)
        return os.path.realpath(path) == trusted


def pinned_files(trusts: Iterable[Trust]) -> Iterator[tuple[str, str]]:
    """Yield the real path of each file that is trusted with one content only, and its SHA-256."""
    for trust in trusts:
        if trust.sha256 is not None:
            yield os.path.realpath(trust.path), trust.sha256


def unused_trust(trusts: Iterable[Trust], paths: Iterable[str]) -> Trust | None:
    """Return the first trust that covers none of the files of a command; None if all cover one.

    Whoever trusts an index may trust, and pin, each of its shards.
    """
    trusts, files = tuple(trusts), list(paths)
    for path in tuple(files):
        if any(trust.covers(path) for trust in trusts):
            files += shards_of(path)
    for trust in trusts:
        if not any(map(trust.covers, files)):
            return trust
    return None


def parse_trust(text: str) -> Trust:
    """Parse `a.pt`, or `a.pt@sha256:` followed by 64 hexadecimal digits.

    A hash is always read as one, even if a file is called so: that trusts less.

    Raises:
        ValueError: if the text after `@sha256:` is not a digest.
    """
    pinned = _PINNED.fullmatch(text)
    if pinned is not None:
        return Trust(pinned["path"], pinned["digest"].lower())
    if "@sha256:" in text and not os.path.lexists(text):
        raise ValueError("@sha256: must be followed by 64 hexadecimal digits")
    return Trust(text)


def parse_import(text: str) -> str:
    """Return the name of a Python module, or the path of a Python file or a folder.

    Raises:
        ValueError: if it is none of these.
    """
    if text.endswith(".py") or os.path.isdir(text) or _MODULE.fullmatch(text):
        return text
    raise ValueError(f"{text} is not a module (such as torchvision), a .py file, or a folder")


def parse_library(text: str) -> str:
    """Return the name of a library whose module classes can be trusted.

    Raises:
        ValueError: if there is no policy for it.
    """
    if text not in LIBRARIES:
        raise ValueError(f"{text} is not one of the libraries {', '.join(LIBRARIES)}")
    return text


def parse_op(text: str) -> str:
    """Return the qualified name of an op, such as `aten::from_file`.

    Raises:
        ValueError: if it has no namespace, or is not a name.
    """
    if not _OP.fullmatch(text):
        raise ValueError(f"{text} is not the name of an op (such as aten::from_file)")
    return text
