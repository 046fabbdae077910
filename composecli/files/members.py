"""The members of a saved file: an archive, or the old format, which is shown as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

from composecli.files.archive import Archive, NotAnArchive
from composecli.files.old_format import OldFormat, is_old_format
from composecli.files.pickle import NotAPickle, ParsedPickle

HEAD_BYTES = 64


class Members(Protocol):
    """The members of every file of `torch.save`: one pickle, `data.pkl`, and records `data/KEY`.

    Each member means the same as in `Archive`.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def names(self) -> frozenset[str]:
        """The names of all members."""

    @property
    def has_checksums(self) -> bool:
        """Whether any checksum is recorded."""

    def fileno(self) -> int:
        """Return the descriptor of the file."""

    def size(self, name: str) -> int:
        """Return the size of a record in bytes."""

    def start(self, name: str) -> int:
        """Return the offset of a record in the file."""

    def pickle(self, name: str) -> ParsedPickle:
        """Return a pickle, which is parsed once."""

    def byte_order(self) -> bytes:
        """Return the byte order of the records: `little` or `big`."""

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a record in chunks."""

    def checksum(self, name: str) -> int:
        """Return the CRC-32 of a record."""


def open_members(path: Path) -> Members:
    """Open a file of either format.

    Raises:
        NotAnArchive: if it is of neither format, is damaged, or could be read in two ways.
        OSError: if it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not is_old_format(head):
        return Archive(path)
    try:
        return OldFormat(path)
    except NotAPickle as error:
        raise NotAnArchive(str(error)) from None


def lacks_checksums(path: str) -> bool:
    """Return whether the file was saved without checksums for its records."""
    try:
        with open_members(Path(path)) as members:
            return not members.has_checksums
    except NotAnArchive:
        return False
