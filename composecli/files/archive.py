"""A saved model's archive: the members of the zip that PyTorch writes, by their names below its one folder.

Strict, because two readers must see one file: what PyTorch's reader might see otherwise than this one is damage. The
members follow each other from the first byte of the file to the directory, the directory ends the file, each name
stands once (in any case of its letters) and is the same in both headers; only code is compressed.

Source of the format: PKWARE's APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.9 (data descriptor), 4.3.14 (zip64
end of directory), 4.3.16 (end of directory).
"""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from composecli.files.pickle import Operation, ParsedPickle, interpret, operations
from composecli.files.private_copy import anonymous_file

LARGEST_TEXT = 64 * 2**20
LARGEST_TOGETHER = 256 * 2**20
MOST_MEMBERS = 200_000
# Deflated source text reaches 40; bombs are near 1000.
LARGEST_RATIO = 200
PIECE = 2**20

_LOCAL = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_ENCRYPTED, _DESCRIPTOR = 0x1, 0x8
_DESCRIPTOR_SIZES = (16, 24)
_NAME = re.compile(r"[^\x00-\x1f\x7f\\:]+")
# The names that PyTorch looks up, in any case of their letters.
_OWN = re.compile(
    r"(code|data|constants|models|extra|\.data|traced_inputs)(/|$)|(data|constants|traced_inputs)\.pkl$|"
    r"(version|byteorder|archive_format|archive_version|model\.json)$",
    re.IGNORECASE,
)
# What the standard library raises on damaged directories, beside its own BadZipFile.
_DAMAGE = (
    zipfile.BadZipFile, struct.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError, IndexError,
)  # fmt: skip
# What says nothing of the file: no memory, no descriptor.
_NO_MEMORY = "Error -4"
_NOT_THE_FILE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class NotAnArchive(Exception):
    """The bytes are no zip archive that can be read to its end, or one that readers may disagree on."""


class Archive:
    """The members of one archive, read through one descriptor. No content is read until a member is asked for, and
    none twice: what was judged once is what is read again, whatever becomes of the file.
    """

    def __init__(self, path: Path) -> None:
        self._open(path.open("rb"))

    @classmethod
    def of_bytes(cls, data: bytes) -> Archive:
        """An archive that is a member of another."""
        found = cls.__new__(cls)
        file = anonymous_file()
        file.write(data)
        file.flush()
        found._open(file)
        return found

    def _open(self, file: IO[bytes]) -> None:
        self._file = file
        try:
            members, comment = _directory(self._file)
            self._refuse_loose_ends(comment)
            self._starts = dict(self._spans(members))
            self._members = _without_folder(members)
        except NotAnArchive:
            self._file.close()
            raise
        except _DAMAGE as error:
            self._file.close()
            if isinstance(error, OSError) and error.errno in _NOT_THE_FILE:
                raise
            raise NotAnArchive(str(error)) from None
        self._read = dict[str, bytes]()
        self._parsed = dict[str, Any]()
        self._walked = dict[str, ParsedPickle]()
        self._operations = dict[str, tuple[Operation, ...]]()
        self._crcs = any(member.CRC for member in members)

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._members)

    @property
    def has_checksums(self) -> bool:
        """Whether any is recorded: PyTorch can save without, and then all are zero."""
        return self._crcs

    def size(self, name: str) -> int:
        """The size of a member in bytes, unpacked, as the directory states it."""
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        """The bytes of a member that is text, code or a pickle, held against its checksum.

        Raises:
            NotAnArchive: it is not there, damaged, or larger than any such member has reason to be.
        """
        if name not in self._members:
            raise NotAnArchive(f"{name} is missing")
        if name not in self._read:
            self._read[name] = self._checked(name)
        return self._read[name]

    def _checked(self, name: str) -> bytes:
        member = self._members[name]
        if member.file_size > LARGEST_TEXT:
            raise NotAnArchive(f"{name} has {member.file_size:,} bytes")
        packed = os.pread(self._file.fileno(), member.compress_size, self._starts[member.filename])
        data = _unpacked(name, packed, member) if member.compress_type else packed
        if len(data) != member.file_size or (self._crcs and zlib.crc32(data) != member.CRC):
            raise NotAnArchive(f"{name} does not match its checksum")
        return data

    def directory(self) -> bytes:
        """The bytes from its directory on: names, sizes, checksums and places of all members."""
        size = os.fstat(self._file.fileno()).st_size
        return self._bytes(self._directory, size - self._directory)

    def in_order(self) -> tuple[str, ...]:
        """The names, as the members follow each other."""
        return tuple(sorted(self._members, key=self.start))

    def full_name(self, name: str) -> str:
        """With the folder that is above all members."""
        return self._members[name].filename

    def checksum(self, name: str) -> int:
        """The CRC-32 that is recorded of a stored member, computed where none is."""
        return self._members[name].CRC if self._crcs else self._computed(name)

    def start(self, name: str) -> int:
        """Where the content of a member starts in the file."""
        return self._starts[self._members[name].filename]

    def fileno(self) -> int:
        return self._file.fileno()

    def json(self, name: str) -> Any:
        """A member that is JSON, parsed once; it is not to be changed.

        Raises:
            NotAnArchive: it cannot be read, or is no JSON.
        """
        if name not in self._parsed:
            try:
                self._parsed[name] = json.loads(self.read(name))
            except (ValueError, RecursionError) as error:
                raise NotAnArchive(f"{name}: {error}") from None
        return self._parsed[name]

    def pickle(self, name: str) -> ParsedPickle:
        """A member that is a pickle, walked once.

        Raises:
            NotAnArchive, NotAPickle: it cannot be read.
        """
        if name not in self._walked:
            self._walked[name] = interpret(self.operations(name))
        return self._walked[name]

    def operations(self, name: str) -> tuple[Operation, ...]:
        """The opcodes of a member that is a pickle, found once.

        Raises:
            NotAnArchive, NotAPickle: it cannot be read.
        """
        if name not in self._operations:
            self._operations[name] = operations(self.read(name))
        return self._operations[name]

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of a stored member of any size, in pieces."""
        member = self._members[name]
        start, left = self.start(name), member.file_size
        while left:
            piece = os.pread(self._file.fileno(), min(PIECE, left), start)
            if not piece:
                raise NotAnArchive(f"{name} ends early")
            start, left = start + len(piece), left - len(piece)
            yield piece

    def matches_checksum(self, name: str) -> bool:
        """Whether a member is what was written; without a checksum that is not known, and nothing speaks
        against it."""
        if self._members[name].compress_type:
            return self._can_be_read(name)
        return not self._crcs or self._computed(name) == self._members[name].CRC

    def _computed(self, name: str) -> int:
        crc = 0
        for piece in self.pieces(name):
            crc = zlib.crc32(piece, crc)
        return crc

    def _can_be_read(self, name: str) -> bool:
        try:
            self.read(name)
        except NotAnArchive:
            return False
        return True

    def _refuse_loose_ends(self, comment: bytes) -> None:
        """The end of the directory ends the file, and the directory ends there: no comment, no bytes behind."""
        size = os.fstat(self._file.fileno()).st_size
        end = size - _END.size
        signature, disk, first, here, count, length, start, _ = _END.unpack(
            self._bytes(end, _END.size)
        )
        if signature != b"PK\x05\x06" or comment:
            raise NotAnArchive("there is something behind its directory")
        classic = (disk, first, here, count, length, start)
        if self._bytes(max(0, end - _LOCATOR.size), 4) == b"PK\x06\x07":
            end, *wide = self._end_64(end)
            disk, first, here, count, length, start = wide
            if any(
                one != other and one not in (0xFFFF, 0xFFFFFFFF)
                for one, other in zip(classic, wide, strict=True)
            ):
                raise NotAnArchive("its directory has two ends that differ")
        if disk or first or here != count or count > MOST_MEMBERS:
            raise NotAnArchive("its directory does not hold together")
        if start + length != end:
            raise NotAnArchive("there is something before it, or between its directory and the end")
        self._directory = start

    def _end_64(self, end: int) -> tuple[int, ...]:
        signature, _, where, _ = _LOCATOR.unpack(self._bytes(end - _LOCATOR.size, _LOCATOR.size))
        if signature != b"PK\x06\x07" or where + _END_64.size != end - _LOCATOR.size:
            raise NotAnArchive("its directory does not hold together")
        found, _, _, _, disk, first, here, count, length, start = _END_64.unpack(
            self._bytes(where, _END_64.size)
        )
        if found != b"PK\x06\x06":
            raise NotAnArchive("its directory does not hold together")
        return where, disk, first, here, count, length, start

    def _spans(self, members: list[zipfile.ZipInfo]) -> Iterator[tuple[str, int]]:
        """Where the content of each member starts; the members follow each other without anything between."""
        position, seen = 0, set[str]()
        unpacked = sum(member.file_size for member in members if member.compress_type)
        if unpacked > LARGEST_TOGETHER:
            raise NotAnArchive(f"its code has {unpacked:,} bytes")
        for member in sorted(members, key=lambda member: member.header_offset):
            _refuse_name(member, seen)
            _refuse_packing(member)
            start = self._content_start(member, position)
            yield member.filename, start
            position = (
                start
                + member.compress_size
                + self._descriptor(member, start + member.compress_size)
            )
        if position != self._directory:
            raise NotAnArchive("there is something between its members and its directory")

    def _content_start(self, member: zipfile.ZipInfo, position: int) -> int:
        header = _LOCAL.unpack(self._bytes(member.header_offset, _LOCAL.size))
        signature, _, flags, method, _, _, crc, packed, size, name_length, extra = header
        start = member.header_offset + _LOCAL.size
        if member.header_offset != position or signature != b"PK\x03\x04":
            raise NotAnArchive(f"{member.filename} does not follow the member before it")
        said = (crc, packed, size)
        known = (member.CRC, member.compress_size, member.file_size)
        late = bool(flags & _DESCRIPTOR) and said == (0, 0, 0)
        wide = {packed, size} <= {0xFFFFFFFF, 0} and crc in (0, member.CRC)
        name = self._bytes(start, name_length)
        if (
            method != member.compress_type
            or not (said == known or late or wide)
            or name != _raw_name(member)
        ):
            raise NotAnArchive(
                f"{member.filename} is another in its own header than in the directory"
            )
        return int(start + name_length + extra)

    def _descriptor(self, member: zipfile.ZipInfo, end: int) -> int:
        """How many bytes follow the content to say its sizes again."""
        if not member.flag_bits & _DESCRIPTOR:
            return 0
        data = self._bytes(end, max(_DESCRIPTOR_SIZES))
        for size, form in zip(_DESCRIPTOR_SIZES, ("<4s3I", "<4sI2Q"), strict=True):
            if struct.unpack_from(form, data) == (
                b"PK\x07\x08",
                member.CRC,
                member.compress_size,
                member.file_size,
            ):
                return size
        raise NotAnArchive(f"{member.filename} is another in what follows it than in the directory")

    def _bytes(self, start: int, count: int) -> bytes:
        data = os.pread(self._file.fileno(), count, start) if start >= 0 else b""
        if len(data) != count and count != max(_DESCRIPTOR_SIZES):
            raise NotAnArchive("it ends early")
        return data


def _directory(file: IO[bytes]) -> tuple[list[zipfile.ZipInfo], bytes]:
    """The members and the comment as the directory states them."""
    try:
        with zipfile.ZipFile(file) as directory:
            return directory.infolist(), directory.comment
    except zipfile.BadZipFile:
        raise NotAnArchive(
            "it starts as a zip archive and has no readable directory at its end"
        ) from None


def lacks_checksums(path: str) -> bool:
    """Whether it is an archive that was saved without any."""
    try:
        with Archive(Path(path)) as archive:
            return not archive.has_checksums
    except NotAnArchive:
        return False


def damaged_records(path: str) -> tuple[str, ...]:
    """The stored members of an archive that do not match their checksums; none for what is no archive."""
    try:
        with Archive(Path(path)) as archive:
            names = sorted(archive.names)
            return tuple(
                f"{name} does not match its checksum"
                for name in names
                if not archive.matches_checksum(name)
            )
    except NotAnArchive:
        return ()


def _raw_name(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")


def _refuse_name(member: zipfile.ZipInfo, seen: set[str]) -> None:
    name = member.orig_filename
    steps = name.split("/")
    if (
        not _NAME.fullmatch(name)
        or any(step in ("", ".", "..") for step in steps)
        or name != member.filename
    ):
        raise NotAnArchive(f"a member is named {name!r}")
    if name.casefold() in seen:
        raise NotAnArchive(f"{name} is there twice (PyTorch takes A and a for the same)")
    seen.add(name.casefold())


def _refuse_packing(member: zipfile.ZipInfo) -> None:
    code = "/code/" in f"/{member.filename}"
    if member.flag_bits & _ENCRYPTED:
        raise NotAnArchive(f"{member.filename} is encrypted")
    if member.compress_type not in ((0, 8) if code else (0,)):
        raise NotAnArchive(f"{member.filename} is compressed, and PyTorch stores it as it is")
    if member.compress_type == 0 and member.compress_size != member.file_size:
        raise NotAnArchive(f"{member.filename} has two sizes")
    if member.file_size > LARGEST_RATIO * max(1024, member.compress_size):
        raise NotAnArchive(
            f"{member.filename} grows from {member.compress_size:,} to {member.file_size:,} bytes"
        )


def _unpacked(name: str, packed: bytes, member: zipfile.ZipInfo) -> bytes:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = machine.decompress(packed, member.file_size + 1)
    except zlib.error as error:
        if str(error).startswith(_NO_MEMORY):
            raise MemoryError(f"{name}: {error}") from None
        raise NotAnArchive(f"{name}: {error}") from None
    if not machine.eof or machine.unused_data:
        raise NotAnArchive(f"{name} does not end where it says")
    return data


def _without_folder(members: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    names = [member.filename for member in members]
    folders = {name.split("/", 1)[0] for name in names}
    below = len(folders) == 1 and all("/" in name for name in names)
    found = {
        (member.filename.split("/", 1)[1] if below else member.filename): member
        for member in members
    }
    for name in found:
        own = _OWN.match(name)
        if own is not None and own[0] != own[0].lower():
            raise NotAnArchive(
                f"{name} is written in letters that PyTorch does not write (it reads them all the same)"
            )
    return found
