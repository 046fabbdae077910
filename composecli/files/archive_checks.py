"""Strict checks of a zip archive's layout: every reader must see the same members and bytes.

Zip readers differ in which of several contradicting records they believe, so composecli could check
one program and PyTorch load another. Each of these is refused: bytes before, between or after the
members; headers that contradict the directory; names that are repeated (in any case of their
letters); and compression of anything but code.

Source of the format: PKWARE's APPNOTE 6.3.10, sections 4.3.7 to 4.3.16.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from composecli.files import zip_format
from composecli.files.zip_format import Extent, LocalHeader

MAX_UNPACKED_BYTES = 256 * 2**20
MAX_MEMBERS = 200_000
# Deflated source text reaches a ratio of 40; zip bombs come close to 1000.
MAX_COMPRESSION_RATIO = 200
# Below this size, a high ratio is harmless and common.
MIN_RATIO_BYTES = 1024

_NAME = re.compile(r"[^\x00-\x1f\x7f\\:]+")
# PyTorch looks up these names without regard to case.
_RESERVED = re.compile(
    r"(code|data|constants|models|extra|\.data|traced_inputs)(/|$)"
    r"|(data|constants|traced_inputs)\.pkl$"
    r"|(version|byteorder|archive_format|archive_version|model\.json)$",
    re.IGNORECASE,
)
# Members by which PyTorch recognizes its own archives, in whatever folder.
_PYTORCH_MEMBER = re.compile(
    r"([^/]+/)?(data\.pkl|constants\.pkl|model\.json|models/[^/]+\.json|archive_format"
    r"|serialized_exported_program\.json)$",
    re.IGNORECASE,
)
# Errors of the standard library for damaged directories, besides its own BadZipFile.
_DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    struct.error,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    IndexError,
)
# A lack of memory or descriptors says nothing about the file.
_NOT_DAMAGE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class NotAnArchive(Exception):
    """The bytes are not a zip archive, are damaged, or could be read in two ways."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is in an archive.

    `members` are by their names without the folder that all of them may share, and `starts` has, by
    full name, the offset of each member's content. The directory starts at `directory_start`.
    """

    members: Mapping[str, zipfile.ZipInfo]
    starts: Mapping[str, int]
    directory_start: int


def check_layout(file: IO[bytes]) -> Layout:
    """Read the layout of an archive. Contents are not read.

    Raises:
        NotAnArchive: if the file is not an archive, or readers could disagree about it.
        OSError: if memory or descriptors are exhausted.
    """
    try:
        return _check(file)
    except _DAMAGE_ERRORS as error:
        if isinstance(error, OSError) and error.errno in _NOT_DAMAGE:
            raise
        raise NotAnArchive(str(error)) from None


def _check(file: IO[bytes]) -> Layout:
    """Read the layout, and let the errors of the standard library through."""
    descriptor = file.fileno()
    members, comment = _read_directory(file)
    directory_start = _check_end(descriptor, comment)
    starts = dict(_content_starts(descriptor, members, directory_start))
    below = _without_folder(members)
    return Layout(below, starts, directory_start)


def _read_directory(file: IO[bytes]) -> tuple[list[zipfile.ZipInfo], bytes]:
    """Return the members in the directory, and the archive's comment."""
    try:
        with zipfile.ZipFile(file) as directory:
            return directory.infolist(), directory.comment
    except zipfile.BadZipFile:
        message = "it starts like a zip archive but has no readable directory at its end"
        raise NotAnArchive(message) from None


def _check_end(descriptor: int, comment: bytes) -> int:
    """Return the start of the directory.

    The directory must reach to its end records, and these to the end of the file. PyTorch writes a
    zip64 end record and its locator between the two, for large archives at least:

        directory | END_64, LOCATOR (optional) | END
    """
    end_start = os.fstat(descriptor).st_size - zip_format.END.size
    end = _read(descriptor, end_start, zip_format.END.size)
    signature, *numbers, _ = zip_format.END.unpack(end)
    if signature != zip_format.END_SIGNATURE or comment:
        raise NotAnArchive("there are bytes after its directory")
    extent = Extent(*numbers)
    locator_start = max(0, end_start - zip_format.LOCATOR.size)
    possible_signature = _read(descriptor, locator_start, 4)
    if possible_signature == zip_format.LOCATOR_SIGNATURE:
        narrow = extent
        end_start, extent = _read_end_64(descriptor, locator_start)
        _check_agreement(narrow, extent)
    has_other_disks = extent.disk or extent.first_disk or extent.entries_on_disk != extent.entries
    if has_other_disks or extent.entries > MAX_MEMBERS:
        raise NotAnArchive("its directory is inconsistent")
    if extent.start + extent.length != end_start:
        raise NotAnArchive("there are bytes before it, or between its directory and its end")
    return extent.start


def _read_end_64(descriptor: int, locator_start: int) -> tuple[int, Extent]:
    """Return the start of the zip64 end record, and the extent that it states."""
    locator = _read(descriptor, locator_start, zip_format.LOCATOR.size)
    signature, _, start, _ = zip_format.LOCATOR.unpack(locator)
    is_adjacent = start + zip_format.END_64.size == locator_start
    if signature != zip_format.LOCATOR_SIGNATURE or not is_adjacent:
        raise NotAnArchive("its directory is inconsistent")
    end_64 = _read(descriptor, start, zip_format.END_64.size)
    signature, _, _, _, *numbers = zip_format.END_64.unpack(end_64)
    if signature != zip_format.END_64_SIGNATURE:
        raise NotAnArchive("its directory is inconsistent")
    return start, Extent(*numbers)


def _check_agreement(narrow: Extent, wide: Extent) -> None:
    """Refuse end records that differ in a number that both can hold (APPNOTE 4.4.1.4)."""
    in_zip64 = (zip_format.IN_ZIP64_16, zip_format.IN_ZIP64_32)
    for number, wide_number in zip(narrow, wide, strict=True):
        if number != wide_number and number not in in_zip64:
            raise NotAnArchive("its directory has two ends that differ")


def _content_starts(
    descriptor: int, members: list[zipfile.ZipInfo], directory_start: int
) -> Iterator[tuple[str, int]]:
    """Yield the offset of each member's content; members follow each other without gaps."""
    unpacked = sum(member.file_size for member in members if member.compress_type)
    if unpacked > MAX_UNPACKED_BYTES:
        raise NotAnArchive(f"its code has {unpacked:,} bytes")
    position = 0
    folded_names = set[str]()
    for member in sorted(members, key=lambda member: member.header_offset):
        _check_name(member, folded_names)
        _check_compression(member)
        start = _check_header(descriptor, member, position)
        yield member.filename, start
        end = start + member.compress_size
        position = end + _descriptor_length(descriptor, member, end)
    if position != directory_start:
        raise NotAnArchive("there are bytes between its members and its directory")


def _check_header(descriptor: int, member: zipfile.ZipInfo, position: int) -> int:
    """Compare a member's own header with the directory, and return where the content starts."""
    size = zip_format.LOCAL_HEADER.size
    data = _read(descriptor, member.header_offset, size)
    header = LocalHeader(*zip_format.LOCAL_HEADER.unpack(data))
    has_signature = header.signature == zip_format.LOCAL_SIGNATURE
    if member.header_offset != position or not has_signature:
        raise NotAnArchive(f"{member.filename} does not follow the member before it")
    name_start = position + size
    name = _read(descriptor, name_start, header.name_length)
    is_same = (
        header.method == member.compress_type
        and name == _encoded_name(member)
        and _same_numbers(header, member)
    )
    if not is_same:
        message = f"{member.filename} differs between its own header and the directory"
        raise NotAnArchive(message)
    return name_start + header.name_length + header.extra_length


def _same_numbers(header: LocalHeader, member: zipfile.ZipInfo) -> bool:
    """Return whether a header has the directory's checksum and sizes, or defers to other fields."""
    numbers = (member.CRC, member.compress_size, member.file_size)
    own = (header.crc, header.packed_size, header.size)
    if own == numbers:
        return True
    has_descriptor = bool(header.flags & zip_format.DESCRIPTOR_FLAG)
    if has_descriptor and own == (0, 0, 0):
        return True
    sizes_in_zip64 = {header.packed_size, header.size} <= {zip_format.IN_ZIP64_32, 0}
    return sizes_in_zip64 and header.crc in (0, member.CRC)


def _descriptor_length(descriptor: int, member: zipfile.ZipInfo, end: int) -> int:
    """Return the length of the data descriptor behind a member's content, 0 if it has none."""
    if not member.flag_bits & zip_format.DESCRIPTOR_FLAG:
        return 0
    # Fewer bytes at the end of the file are an error in `unpack_from`.
    data = os.pread(descriptor, zip_format.DESCRIPTOR_64.size, end)
    numbers = (member.CRC, member.compress_size, member.file_size)
    expected = (zip_format.DESCRIPTOR_SIGNATURE, *numbers)
    for record in (zip_format.DESCRIPTOR, zip_format.DESCRIPTOR_64):
        if record.unpack_from(data) == expected:
            return record.size
    raise NotAnArchive(f"{member.filename} differs between the record after it and the directory")


def _check_name(member: zipfile.ZipInfo, folded_names: set[str]) -> None:
    """Refuse unsafe and repeated names. Add the name to `folded_names`."""
    name = member.orig_filename
    if not _NAME.fullmatch(name) or name != member.filename:
        raise NotAnArchive(f"a member is named {name!r}")
    for step in name.split("/"):
        if step in ("", ".", ".."):
            raise NotAnArchive(f"a member is named {name!r}")
    folded_name = name.casefold()
    if folded_name in folded_names:
        raise NotAnArchive(f"{name} occurs twice (PyTorch ignores case in names)")
    folded_names.add(folded_name)


def _check_compression(member: zipfile.ZipInfo) -> None:
    """Refuse encryption, and compression of anything but code (APPNOTE 4.4.5)."""
    name = member.filename
    is_code = "/code/" in f"/{name}"
    if member.flag_bits & zip_format.ENCRYPTED_FLAG:
        raise NotAnArchive(f"{name} is encrypted")
    is_stored = member.compress_type == zip_format.STORED
    is_deflated_code = is_code and member.compress_type == zip_format.DEFLATED
    if not is_stored and not is_deflated_code:
        raise NotAnArchive(f"{name} is compressed, but PyTorch stores it uncompressed")
    packed, size = member.compress_size, member.file_size
    if is_stored and packed != size:
        raise NotAnArchive(f"{name} has two sizes")
    max_size = MAX_COMPRESSION_RATIO * max(MIN_RATIO_BYTES, packed)
    if size > max_size:
        raise NotAnArchive(f"{name} grows from {packed:,} to {size:,} bytes")


def _encoded_name(member: zipfile.ZipInfo) -> bytes:
    """Return the name as its bytes are in the file: UTF-8 if flagged so, else code page 437."""
    if member.flag_bits & zip_format.UTF8_FLAG:
        return member.orig_filename.encode()
    return member.orig_filename.encode("cp437")


def _without_folder(members: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Return the members by their names below the one folder that PyTorch puts them in, if any."""
    names = [member.filename for member in members]
    folders = {name.split("/", 1)[0] for name in names}
    share_folder = len(folders) == 1 and all("/" in name for name in names)
    if not share_folder and any(map(_PYTORCH_MEMBER.match, names)):
        _check_roots(names, folders)
    below = dict[str, zipfile.ZipInfo]()
    for member in members:
        name = member.filename
        if share_folder:
            name = name.split("/", 1)[1]
        below[name] = member
    for name in below:
        _check_case(name)
    return below


def _check_roots(names: list[str], folders: set[str]) -> None:
    """Refuse an archive of PyTorch's whose members are in several folders, or in none and in one.

    PyTorch reads the folder of the first member, and would find another model than is found here.
    An archive without any folder is of an old format, which has no folders below it, either.
    """
    if len(folders) > 1 and any("/" in name for name in names):
        first, second = sorted(folders)[:2]
        message = f"its members are in more than one folder: {first} and {second}"
        raise NotAnArchive(message)


def _check_case(name: str) -> None:
    """Refuse a reserved name in another case: PyTorch would read it all the same."""
    reserved = _RESERVED.match(name)
    if reserved is None:
        return
    found = reserved[0]
    if found != found.lower():
        raise NotAnArchive(f"{name} is in a letter case that PyTorch does not write but reads")


def _read(descriptor: int, start: int, count: int) -> bytes:
    """Return exactly `count` bytes; a start before the file is an early end, too."""
    data = b""
    if start >= 0:
        data = os.pread(descriptor, count, start)
    if len(data) != count:
        raise NotAnArchive("it ends early")
    return data
