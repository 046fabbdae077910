"""Splicing: an archive written anew, with records of other files in the place of its empty ones.

Content goes from file to file without passing through this process where the system can do that. Nothing is packed;
contents start at multiples of 64 bytes, as PyTorch writes them.

Source of the format: PKWARE's APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14 (zip64 end of
directory), 4.3.16 (end of directory), 4.5.3 (zip64 extra field).
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from composecli.files.emptied import moved
from composecli.files.zip import PIECE, Archive, NotAnArchive

ALIGNMENT = 64
_WIDE = 0xFFFFFFFF
# From here on a number has a field of its own, and this in the place of the old one.
_WIDE_FROM = _WIDE
_MOST = 0xFFFF
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_UTF8 = 0x800
_NEEDED, _NEEDED_64 = 20, 45
# An extra field of no meaning, as PyTorch pads with.
_PADDING = b"FB"


@dataclass(frozen=True, slots=True)
class Source:
    """A record of another archive."""

    path: str
    record: str


@dataclass(frozen=True, slots=True)
class Spliced:
    """What was written: `size` in bytes, its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class DamagedRecord(Exception):
    """A record that was copied does not match the checksum that its file has for it."""

    def __init__(self, source: Source) -> None:
        super().__init__(f"{source.record} does not match its checksum")
        self.source = source


@dataclass(frozen=True, slots=True)
class Plan:
    """The members of `skeleton`, with the content of `sources` for those that these name, and `extra` members after
    them, made when all else is written."""

    skeleton: Path
    sources: Mapping[str, Source]
    extra: Mapping[str, Callable[[], bytes]]


class Splicing:
    """A splice in a thread of its own. Where it is left before the end, it is not finished."""

    def __init__(self, plan: Plan, target: Path) -> None:
        self._stopped = threading.Event()
        self._found: Spliced | Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(plan, target), daemon=True)

    def __enter__(self) -> Splicing:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def result(self) -> Spliced:
        """Wait for it. Raises what `splice` does."""
        self._thread.join()
        if isinstance(self._found, Exception):
            raise self._found
        assert self._found is not None
        return self._found

    def _run(self, plan: Plan, target: Path) -> None:
        try:
            self._found = splice(plan, target, self._stopped)
        except Exception as error:
            self._found = error


class _Stopped(Exception):
    """Nobody waits for the splice any more."""


def splice(plan: Plan, target: Path, stopped: threading.Event) -> Spliced:
    """Write `target`, unless it is stopped.

    Raises:
        DamagedRecord: a record is not what was written once.
        NotAnArchive: a file is no archive any more.
        OSError: it cannot be written.
    """
    with ExitStack() as stack:
        members = stack.enter_context(Archive(plan.skeleton))
        own = {name: Source(str(plan.skeleton), name) for name in members.names if name.startswith("data/")}
        sources = {**own, **plan.sources}
        paths = {source.path for source in sources.values()}
        archives = {path: stack.enter_context(Archive(Path(path))) for path in paths}
        file = stack.enter_context(target.open("w+b", buffering=0))
        writer = _Writer(file, stopped)
        with writer.hashing:
            for name in members.in_order():
                full = members.full_name(name)
                if name in sources:
                    _copy(writer, full, archives[sources[name].path], sources[name])
                else:
                    writer.add(full, _content(members, name))
            folder = members.full_name("data.pkl").removesuffix("data.pkl")
            for name, make in plan.extra.items():
                writer.add(folder + name, make())
            writer.finish()
        return Spliced(writer.position, writer.hashing.hexdigest())


def _content(members: Archive, name: str) -> bytes:
    if name != "data.pkl":
        return members.read(name)
    data = moved(members, name, "cpu")
    if data is None:
        raise NotAnArchive("data.pkl is not written as PyTorch does")
    return data


def _copy(writer: _Writer, name: str, archive: Archive, source: Source) -> None:
    size = archive.size(source.record)
    crc = archive.checksum(source.record)
    writer.start(name, size, crc)
    if _copied(archive.fileno(), archive.start(source.record), writer, size) != crc:
        raise DamagedRecord(source)


def _copied(reading: int, start: int, writer: _Writer, size: int) -> int:
    """Copy that many bytes to where the writer is; the CRC-32 of what lies there after."""
    crc, left = 0, size
    while left:
        count = _move(reading, writer.file.fileno(), start, writer.position, min(left, 8 * PIECE))
        if not count:
            raise NotAnArchive("a file ends early that was read before")
        for place in range(writer.position, writer.position + count, PIECE):
            length = min(PIECE, writer.position + count - place)
            crc = zlib.crc32(os.pread(writer.file.fileno(), length, place), crc)
        start, left = start + count, left - count
        writer.advance(count)
    return crc


def _move(reading: int, writing: int, start: int, position: int, count: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(reading, writing, count, start, position)
        except OSError:
            pass  # Between these two the system cannot: through memory it can.
    return os.pwrite(writing, os.pread(reading, min(count, PIECE), start), position)


@dataclass
class _Entry:
    name: bytes
    size: int
    crc: int
    start: int


class _Writer:
    """Members one after the other, then their directory."""

    def __init__(self, file: IO[bytes], stopped: threading.Event) -> None:
        self.file = file
        self.stopped = stopped
        self.position = 0
        self.entries = list[_Entry]()
        self.hashing = _Hashing(file.fileno())

    def add(self, name: str, data: bytes) -> None:
        self.start(name, len(data), zlib.crc32(data))
        self._write(data)

    def start(self, name: str, size: int, crc: int) -> None:
        """The header of a member, whose content follows at a multiple of 64 bytes."""
        raw = name.encode()
        self.entries.append(_Entry(raw, size, crc, self.position))
        wide = size >= _WIDE_FROM
        extra = struct.pack("<2H2Q", 1, 16, size, size) if wide else b""
        padding = -(self.position + _LOCAL.size + len(raw) + len(extra) + 4) % ALIGNMENT
        extra += _PADDING + struct.pack("<H", padding) + b"Z" * padding
        shown, needed = (_WIDE, _NEEDED_64) if wide else (size, _NEEDED)
        head = _LOCAL.pack(b"PK\x03\x04", needed, _flags(raw), 0, 0, 0, crc, shown, shown, len(raw), len(extra))
        self._write(head + raw + extra)

    def finish(self) -> None:
        """The directory."""
        start = self.position
        self._write(b"".join(map(_directory_entry, self.entries)))
        length, count = self.position - start, len(self.entries)
        if max(start, length) >= _WIDE_FROM or count >= _MOST:
            end = self.position
            self._write(_END_64.pack(b"PK\x06\x06", 44, _NEEDED_64, _NEEDED_64, 0, 0, count, count, length, start))
            self._write(_LOCATOR.pack(b"PK\x06\x07", 0, end, 1))
        shown = min(count, _MOST)
        self._write(_END.pack(b"PK\x05\x06", 0, 0, shown, shown, _narrow(length), _narrow(start), 0))

    def advance(self, count: int) -> None:
        if self.stopped.is_set():
            raise _Stopped
        self.position += count
        self.hashing.reached(self.position)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            count = os.pwrite(self.file.fileno(), left, self.position)
            left = left[count:]
            self.advance(count)


def _narrow(number: int) -> int:
    return number if number < _WIDE_FROM else _WIDE


def _flags(name: bytes) -> int:
    return 0 if name.isascii() else _UTF8


def _directory_entry(entry: _Entry) -> bytes:
    numbers = [number for number in (entry.size, entry.size, entry.start) if number >= _WIDE_FROM]
    extra = struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
    size, needed = _narrow(entry.size), _NEEDED_64 if numbers else _NEEDED
    head = _ENTRY.pack(
        b"PK\x01\x02", 0, needed, _flags(entry.name), 0, 0, 0, entry.crc, size, size, len(entry.name), len(extra),
        0, 0, 0, 0, _narrow(entry.start),
    )  # fmt: skip
    return head + entry.name + extra


@dataclass
class _Hashing:
    """The SHA-256 of a file that is being written, in a thread that follows the writer."""

    descriptor: int
    _end: int = 0
    _done: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._done = True
            self._changed.notify()
        self._thread.join()

    def reached(self, position: int) -> None:
        with self._changed:
            self._end = position
            self._changed.notify()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def _follow(self) -> None:
        for start, end in self._pieces():
            self._hash.update(os.pread(self.descriptor, end - start, start))

    def _pieces(self) -> Iterator[tuple[int, int]]:
        position = 0
        while True:
            with self._changed:
                while self._end == position and not self._done:
                    self._changed.wait()
                end = min(self._end, position + PIECE)
            if end == position:
                return
            yield position, end
            position = end
