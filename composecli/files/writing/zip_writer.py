"""Writing a zip archive as PyTorch does: nothing compressed, and contents at multiples of 64 bytes.

Source of the format: PKWARE's APPNOTE 6.3.10; its sections are named in `files/zip_format.py`.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from composecli.files import zip_format
from composecli.files.zip_format import DirectoryEntry, Extent, LocalHeader

ALIGNMENT = 64
# From here on, numbers move to a zip64 field. The largest 32-bit number itself marks such fields.
ZIP64_FROM = zip_format.IN_ZIP64_32
MAX_NARROW_COUNT = zip_format.IN_ZIP64_16

# The id of the extra field that PyTorch pads with, and the length of an extra field's header.
_PADDING_ID = 0x4246
_EXTRA_HEADER = struct.Struct("<2H")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A member that was written: its encoded name, and where its header starts."""

    name: bytes
    size: int
    crc: int
    header_start: int


class ZipWriter:
    """Writes members one after the other, then their directory.

    `on_progress` is called with the new position after each write.
    """

    def __init__(self, descriptor: int, on_progress: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._on_progress = on_progress
        self._entries = list[_Entry]()
        self.position = 0

    def add(self, name: str, data: bytes) -> None:
        """Write a member."""
        crc = zlib.crc32(data)
        self.start(name, len(data), crc)
        self._write(data)

    def start(self, name: str, size: int, crc: int) -> None:
        """Write the header of a member; the caller writes its content at `position` next."""
        encoded = name.encode()
        self._entries.append(_Entry(encoded, size, crc, self.position))
        is_wide = size >= ZIP64_FROM
        extra = b""
        if is_wide:
            extra = _zip64_extra(size, size)
        header_length = zip_format.LOCAL_HEADER.size + len(encoded) + len(extra)
        extra += _padding(self.position + header_length)
        header = LocalHeader(
            zip_format.LOCAL_SIGNATURE,
            version=_version(is_wide=is_wide),
            flags=_flags(encoded),
            method=zip_format.STORED,
            time=0,
            date=0,
            crc=crc,
            packed_size=_narrow(size),
            size=_narrow(size),
            name_length=len(encoded),
            extra_length=len(extra),
        )
        packed = zip_format.LOCAL_HEADER.pack(*header)
        self._write(packed + encoded + extra)

    def advance(self, count: int) -> None:
        """Record that the caller wrote this many bytes at `position`."""
        self.position += count
        self._on_progress(self.position)

    def finish(self) -> None:
        """Write the directory and its end records."""
        start = self.position
        entries = map(_directory_entry, self._entries)
        self._write(b"".join(entries))
        length = self.position - start
        count = len(self._entries)
        extent = Extent(0, 0, count, count, length, start)
        if max(start, length) >= ZIP64_FROM or count >= MAX_NARROW_COUNT:
            self._write_zip64_end(extent)
        narrow_count = min(count, MAX_NARROW_COUNT)
        narrow = Extent(0, 0, narrow_count, narrow_count, _narrow(length), _narrow(start))
        end = zip_format.END.pack(zip_format.END_SIGNATURE, *narrow, 0)
        self._write(end)

    def _write_zip64_end(self, extent: Extent) -> None:
        """Write the zip64 end record and its locator (APPNOTE 4.3.14 and 4.3.15)."""
        end_start = self.position
        version = zip_format.VERSION_64
        end = zip_format.END_64.pack(
            zip_format.END_64_SIGNATURE, zip_format.END_64_SIZE, version, version, *extent
        )
        self._write(end)
        locator = zip_format.LOCATOR.pack(zip_format.LOCATOR_SIGNATURE, 0, end_start, 1)
        self._write(locator)

    def _write(self, data: bytes) -> None:
        """Write all bytes at the position, in as many calls as the system needs."""
        remaining = memoryview(data)
        while remaining:
            count = os.pwrite(self._descriptor, remaining, self.position)
            remaining = remaining[count:]
            self.advance(count)


def _padding(position: int) -> bytes:
    """Return an extra field at `position` behind which the content is aligned."""
    length = -(position + _EXTRA_HEADER.size) % ALIGNMENT
    return _EXTRA_HEADER.pack(_PADDING_ID, length) + b"Z" * length


def _zip64_extra(*numbers: int) -> bytes:
    """Return an extra field of 64-bit numbers (APPNOTE 4.5.3)."""
    values = struct.pack(f"<{len(numbers)}Q", *numbers)
    header = _EXTRA_HEADER.pack(zip_format.ZIP64_EXTRA, len(values))
    return header + values


def _narrow(number: int) -> int:
    """Return a number for a 32-bit field, or the mark that it is in a zip64 field."""
    if number >= ZIP64_FROM:
        return zip_format.IN_ZIP64_32
    return number


def _version(*, is_wide: bool) -> int:
    """Return the version that a reader needs (APPNOTE 4.4.3)."""
    if is_wide:
        return zip_format.VERSION_64
    return zip_format.VERSION


def _flags(name: bytes) -> int:
    """Return the general purpose flags: UTF-8 for a name beyond ASCII (APPNOTE 4.4.4)."""
    if name.isascii():
        return 0
    return zip_format.UTF8_FLAG


def _directory_entry(entry: _Entry) -> bytes:
    """Return a member's entry; its zip64 field has only the numbers that are too large."""
    numbers = (entry.size, entry.size, entry.header_start)
    wide_numbers = [number for number in numbers if number >= ZIP64_FROM]
    extra = b""
    if wide_numbers:
        extra = _zip64_extra(*wide_numbers)
    record = DirectoryEntry(
        zip_format.DIRECTORY_SIGNATURE,
        version_made_by=0,
        version=_version(is_wide=bool(wide_numbers)),
        flags=_flags(entry.name),
        method=zip_format.STORED,
        time=0,
        date=0,
        crc=entry.crc,
        packed_size=_narrow(entry.size),
        size=_narrow(entry.size),
        name_length=len(entry.name),
        extra_length=len(extra),
        comment_length=0,
        disk=0,
        internal_attributes=0,
        external_attributes=0,
        header_start=_narrow(entry.header_start),
    )
    packed = zip_format.DIRECTORY_ENTRY.pack(*record)
    return packed + entry.name + extra
