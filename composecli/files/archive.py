"""A saved model's archive: the members of the zip file that PyTorch writes."""

from __future__ import annotations

import os
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from composecli.files.archive_checks import NotAnArchive, check_layout
from composecli.files.open_file import OpenFile
from composecli.files.pickle import Operation, ParsedPickle, interpret, operations
from composecli.files.private_copy import anonymous_file
from composecli.files.strict_json import parse_json

__all__ = ["CHUNK_BYTES", "MAX_TEXT_BYTES", "Archive", "NotAnArchive", "damaged_records"]

MAX_TEXT_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20

# zlib's Z_MEM_ERROR, as its messages start.
_OUT_OF_MEMORY = "Error -4"


class Archive(OpenFile):
    """The members of one archive, by their names below the folder that PyTorch puts them in.

    No content is read until it is asked for, and none twice: the bytes that were checked are the
    bytes that later calls return, even if the file changes.
    """

    def __init__(self, source: Path | IO[bytes]) -> None:
        """Open a file, or take over one that is open already.

        Raises:
            NotAnArchive: if it is not an archive, is damaged, or could be read in two ways.
        """
        if isinstance(source, Path):
            source = source.open("rb")
        super().__init__(source)
        try:
            self._layout = check_layout(source)
        except BaseException:
            source.close()
            raise
        self._members = self._layout.members
        self._has_checksums = any(member.CRC for member in self._members.values())
        self._contents = dict[str, bytes]()
        self._json = dict[str, Any]()
        self._pickles = dict[str, ParsedPickle]()
        self._operations = dict[str, tuple[Operation, ...]]()

    @classmethod
    def of_bytes(cls, data: bytes) -> Archive:
        """Return an archive that is itself a member of another one."""
        file = anonymous_file()
        file.write(data)
        file.flush()
        return cls(file)

    @property
    def names(self) -> frozenset[str]:
        """The names of all members."""
        return frozenset(self._members)

    @property
    def has_checksums(self) -> bool:
        """Whether any checksum is recorded; if PyTorch saves without them, all are zero."""
        return self._has_checksums

    def names_in_order(self) -> tuple[str, ...]:
        """Return the names in the order of the members in the file."""
        return tuple(sorted(self._members, key=self.start))

    def full_name(self, name: str) -> str:
        """Return the name with the folder that all members are in."""
        return self._members[name].filename

    def size(self, name: str) -> int:
        """Return the unpacked size of a member in bytes, as the directory states it."""
        return self._members[name].file_size

    def start(self, name: str) -> int:
        """Return the offset of a member's content in the file."""
        return self._layout.starts[self._members[name].filename]

    def directory_bytes(self) -> bytes:
        """Return the directory and its end records: all names, sizes, checksums and offsets.

        Raises:
            NotAnArchive: if the file became shorter.
        """
        start = self._layout.directory_start
        length = os.fstat(self.fileno()).st_size - start
        data = os.pread(self.fileno(), length, start)
        if len(data) != length:
            raise NotAnArchive("it ends early")
        return data

    def read(self, name: str) -> bytes:
        """Return the bytes of a member that is text, code or a pickle, and verify its checksum.

        Raises:
            NotAnArchive: if it is missing, damaged, or too large for such a member.
        """
        if name not in self._members:
            raise NotAnArchive(f"{name} is missing")
        if name not in self._contents:
            self._contents[name] = self._read_verified(name)
        return self._contents[name]

    def _read_verified(self, name: str) -> bytes:
        """Return the content of a small member, checked against its size and checksum."""
        member = self._members[name]
        if member.file_size > MAX_TEXT_BYTES:
            raise NotAnArchive(f"{name} has {member.file_size:,} bytes")
        start = self.start(name)
        data = os.pread(self.fileno(), member.compress_size, start)
        if member.compress_type:
            data = _inflate(name, data, member)
        has_other_checksum = self._has_checksums and zlib.crc32(data) != member.CRC
        if len(data) != member.file_size or has_other_checksum:
            raise NotAnArchive(f"{name} does not match its checksum")
        return data

    def json(self, name: str) -> Any:
        """Return a JSON member, which is parsed once; callers must not modify it.

        Raises:
            NotAnArchive: if it cannot be read, or is not JSON.
        """
        if name not in self._json:
            try:
                self._json[name] = parse_json(self.read(name))
            except (ValueError, RecursionError) as error:
                raise NotAnArchive(f"{name}: {error}") from None
        return self._json[name]

    def pickle(self, name: str) -> ParsedPickle:
        """Return a pickle member, which is parsed once.

        Raises:
            NotAnArchive: if it cannot be read.
            NotAPickle: if it is not a pickle that PyTorch could have written.
        """
        if name not in self._pickles:
            self._pickles[name] = interpret(self.operations(name))
        return self._pickles[name]

    def operations(self, name: str) -> tuple[Operation, ...]:
        """Return the opcodes of a pickle member, which are decoded once.

        Raises:
            NotAnArchive: if it cannot be read.
            NotAPickle: if the opcodes do not reach to the end.
        """
        if name not in self._operations:
            self._operations[name] = operations(self.read(name))
        return self._operations[name]

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a member of any size in chunks, compressed if the archive has it so.

        Raises:
            NotAnArchive: if the file became shorter.
        """
        start = self.start(name)
        remaining = self._members[name].compress_size
        while remaining:
            count = min(CHUNK_BYTES, remaining)
            piece = os.pread(self.fileno(), count, start)
            if not piece:
                raise NotAnArchive(f"{name} ends early")
            start += len(piece)
            remaining -= len(piece)
            yield piece

    def byte_order(self) -> bytes:
        """Return the byte order of the tensors: `little` or `big`. Unstated, it is this machine's.

        Raises:
            NotAnArchive: if the member that states it cannot be read.
        """
        if "byteorder" not in self._members:
            return sys.byteorder.encode()
        return self.read("byteorder")

    def checksum(self, name: str) -> int:
        """Return the recorded CRC-32 of a stored member, or compute it if none is recorded."""
        if self._has_checksums:
            return self._members[name].CRC
        return self._compute_checksum(name)

    def matches_checksum(self, name: str) -> bool:
        """Return whether a member matches its checksum; True if none is recorded."""
        if self._members[name].compress_type:
            return self._is_readable(name)
        if not self._has_checksums:
            return True
        return self._compute_checksum(name) == self._members[name].CRC

    def _compute_checksum(self, name: str) -> int:
        """Return the CRC-32 of a member's content, read in chunks."""
        crc = 0
        for piece in self.pieces(name):
            crc = zlib.crc32(piece, crc)
        return crc

    def _is_readable(self, name: str) -> bool:
        """Return whether a compressed member unpacks to its stated size and checksum."""
        try:
            self.read(name)
        except NotAnArchive:
            return False
        return True


def _inflate(name: str, packed: bytes, member: zipfile.ZipInfo) -> bytes:
    """Unpack a deflated member, to no more bytes than its header states."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # One byte more than expected shows that there is more, and bounds the memory.
        data = inflater.decompress(packed, member.file_size + 1)
    except zlib.error as error:
        if str(error).startswith(_OUT_OF_MEMORY):
            raise MemoryError(f"{name}: {error}") from None
        raise NotAnArchive(f"{name}: {error}") from None
    if not inflater.eof or inflater.unused_data:
        raise NotAnArchive(f"{name} does not end where its header states")
    return data


def damaged_records(path: str) -> tuple[str, ...]:
    """Return a message for each member that does not match its checksum; () if not an archive."""
    messages = list[str]()
    try:
        with Archive(Path(path)) as archive:
            for name in sorted(archive.names):
                if not archive.matches_checksum(name):
                    messages.append(f"{name} does not match its checksum")
    except NotAnArchive:
        return ()
    return tuple(messages)
