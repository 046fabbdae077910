"""Splicing: an archive written anew, with records of other files in the place of its empty ones.

Content goes from file to file without passing through this process where the system can do that, and is read back
behind the writer, for its checksums. Nothing is packed; contents start at multiples of 64 bytes, as PyTorch writes
them.

Source of the format: PKWARE's APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14 (zip64 end of
directory), 4.3.16 (end of directory), 4.5.3 (zip64 extra field).
"""

from __future__ import annotations

import hashlib
import os
import queue
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from composecli.files.archive import PIECE, Archive, NotAnArchive
from composecli.files.skeleton import with_storages_on

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
# Of the thread that reads back: others wait for the writer, and nobody for it.
_NICENESS = 10


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


class BackgroundSplice:
    """A splice in threads of its own. Where it is left before the end, it is not finished."""

    def __init__(self, plan: Plan, target: Path) -> None:
        self._progress = Progress()
        self._found: Spliced | Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(plan, target), daemon=True)

    def __enter__(self) -> BackgroundSplice:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stopped.set()
        self._thread.join()

    def written(self) -> None:
        """Wait until all of it is in its file, though not read back. Raises what `splice` does."""
        self._progress.written.wait()
        if isinstance(self._found, Exception):
            raise self._found

    def result(self) -> Spliced:
        """Wait for it. Raises what `splice` does."""
        self._thread.join()
        if isinstance(self._found, Exception):
            raise self._found
        assert self._found is not None
        return self._found

    def _run(self, plan: Plan, target: Path) -> None:
        try:
            self._found = splice(plan, target, self._progress)
        except Exception as error:
            self._found = error
        finally:
            self._progress.written.set()


@dataclass(frozen=True, slots=True)
class Progress:
    """`written`: all is in the file. `stopped`: nobody waits for it any more."""

    written: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)


class _Stopped(Exception):
    """Nobody waits for the splice any more."""


def splice(plan: Plan, target: Path, progress: Progress) -> Spliced:
    """Write `target`, unless it is stopped.

    Raises:
        DamagedRecord: a record is not what was written once.
        NotAnArchive: a file is no archive any more.
        OSError: it cannot be written.
    """
    with ExitStack() as stack:
        members = stack.enter_context(Archive(plan.skeleton))
        own = {
            name: Source(str(plan.skeleton), name)
            for name in members.names
            if name.startswith("data/")
        }
        sources = {**own, **plan.sources}
        paths = {source.path for source in sources.values()}
        archives = {path: stack.enter_context(Archive(Path(path))) for path in paths}
        file = stack.enter_context(target.open("w+b", buffering=0))
        behind = _Verifier(file.fileno(), progress.stopped)
        writer = _Writer(file, behind)
        with behind:
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
            progress.written.set()
        return Spliced(writer.position, behind.sha256())


def _content(members: Archive, name: str) -> bytes:
    if name != "data.pkl":
        return members.read(name)
    data = with_storages_on(members, name, "cpu")
    if data is None:
        raise NotAnArchive("data.pkl is not written as PyTorch does")
    return data


def _copy(writer: _Writer, name: str, archive: Archive, source: Source) -> None:
    start, left = archive.start(source.record), archive.size(source.record)
    writer.start(name, left, archive.checksum(source.record), source)
    while left:
        count = _move(
            archive.fileno(), writer.file.fileno(), start, writer.position, min(left, 8 * PIECE)
        )
        if not count:
            raise NotAnArchive("a file ends early that was read before")
        start, left = start + count, left - count
        writer.advance(count)


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

    def __init__(self, file: IO[bytes], behind: _Verifier) -> None:
        self.file = file
        self.behind = behind
        self.position = 0
        self.entries = list[_Entry]()

    def add(self, name: str, data: bytes) -> None:
        self.start(name, len(data), zlib.crc32(data))
        self._write(data)

    def start(self, name: str, size: int, crc: int, source: Source | None = None) -> None:
        """The header of a member, whose content follows at a multiple of 64 bytes. What is copied from a source is held
        against the checksum when it is read back."""
        raw = name.encode()
        self.entries.append(_Entry(raw, size, crc, self.position))
        wide = size >= _WIDE_FROM
        extra = struct.pack("<2H2Q", 1, 16, size, size) if wide else b""
        padding = -(self.position + _LOCAL.size + len(raw) + len(extra) + 4) % ALIGNMENT
        extra += _PADDING + struct.pack("<H", padding) + b"Z" * padding
        shown, needed = (_WIDE, _NEEDED_64) if wide else (size, _NEEDED)
        head = _LOCAL.pack(
            b"PK\x03\x04", needed, _flags(raw), 0, 0, 0, crc, shown, shown, len(raw), len(extra)
        )
        self._write(head + raw + extra)
        if source is not None:
            self.behind.expect(_ExpectedCrc(self.position + size, crc, source))

    def finish(self) -> None:
        """The directory."""
        start = self.position
        self._write(b"".join(map(_directory_entry, self.entries)))
        length, count = self.position - start, len(self.entries)
        if max(start, length) >= _WIDE_FROM or count >= _MOST:
            end = self.position
            self._write(
                _END_64.pack(
                    b"PK\x06\x06", 44, _NEEDED_64, _NEEDED_64, 0, 0, count, count, length, start
                )
            )
            self._write(_LOCATOR.pack(b"PK\x06\x07", 0, end, 1))
        shown = min(count, _MOST)
        self._write(
            _END.pack(b"PK\x05\x06", 0, 0, shown, shown, _narrow(length), _narrow(start), 0)
        )

    def advance(self, count: int) -> None:
        self.position += count
        self.behind.reached(self.position)

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


@dataclass(frozen=True, slots=True)
class _ExpectedCrc:
    """The CRC-32 that what comes next is to have, up to this place, and where it is from."""

    end: int
    crc: int
    source: Source


class _Verifier:
    """A thread that follows the writer of a file and reads what lies there, for the SHA-256 of all and the CRC-32 of
    each record."""

    def __init__(self, descriptor: int, stopped: threading.Event) -> None:
        self._descriptor = descriptor
        self._stopped = stopped
        self._said = queue.SimpleQueue[int | _ExpectedCrc | None]()
        self._sha256 = hashlib.sha256()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._stopped.set()
        self._said.put(None)
        self._thread.join()

    def expect(self, found: _ExpectedCrc) -> None:
        """A record is going to be written from here on."""
        self._said.put(found)

    def reached(self, position: int) -> None:
        """All before it is written."""
        if self._failure is not None:
            raise self._failure
        if self._stopped.is_set():
            raise _Stopped
        self._said.put(position)

    def sha256(self) -> str:
        """In hexadecimal, of the whole file.

        Raises:
            DamagedRecord: a record has another checksum than it is to have.
            OSError: it cannot be read.
        """
        if self._failure is not None:
            raise self._failure
        return self._sha256.hexdigest()

    def _run(self) -> None:
        _lower_priority()
        try:
            self._follow()
        except Exception as error:
            self._failure = error

    def _follow(self) -> None:
        position = crc = 0
        expected: _ExpectedCrc | None = None
        while (said := self._said.get()) is not None:
            if isinstance(said, _ExpectedCrc):
                expected, crc = said, 0
            else:
                for data in self._pieces(position, said):
                    crc = zlib.crc32(data, crc) if expected is not None else 0
                position = said
            if expected is not None and position == expected.end:
                if crc != expected.crc:
                    raise DamagedRecord(expected.source)
                expected = None

    def _pieces(self, position: int, end: int) -> Iterator[bytes]:
        """What lies between these two, once it is in the SHA-256."""
        while position < end:
            if self._stopped.is_set():
                raise _Stopped
            data = os.pread(self._descriptor, min(PIECE, end - position), position)
            if not data:
                raise NotAnArchive("the output became shorter while it was written")
            self._sha256.update(data)
            position += len(data)
            yield data


def _lower_priority() -> None:
    """Leave the cores to whoever else wants them: on Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
