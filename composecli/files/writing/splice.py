"""Splicing: a copy of an archive, with records of other files in the place of its empty ones.

The kernel copies contents from file to file if it can, so that they do not pass through this
process. They are read back concurrently, to verify their checksums.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from composecli.files.archive import CHUNK_BYTES, Archive, NotAnArchive
from composecli.files.members import Members, open_members
from composecli.files.skeleton import with_storages_on
from composecli.files.writing.read_back import ExpectedChecksum, ReadBack
from composecli.files.writing.zip_writer import ZipWriter

# The kernel copies more per call than Python reads, and checks for a stop in between.
KERNEL_COPY_BYTES = 8 * CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class Source:
    """A record of another archive."""

    path: str
    record: str


@dataclass(frozen=True, slots=True)
class Spliced:
    """The file that was written: its `size` in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class DamagedRecord(Exception):
    """A copied record does not match the checksum in its file."""

    def __init__(self, source: Source) -> None:
        super().__init__(f"{source.record} does not match its checksum")
        self.source = source


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write: the members of `skeleton`, with the content of `sources` for those in it.

    `extra` members follow, and are made once all others are written.
    """

    skeleton: Path
    sources: Mapping[str, Source]
    extra: Mapping[str, Callable[[], bytes]]


@dataclass(frozen=True, slots=True)
class Progress:
    """`written` is set once the file is complete; setting `stopped` abandons it."""

    written: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)


class BackgroundSplice:
    """A splice in threads of its own, which is abandoned if its context ends early."""

    def __init__(self, plan: Plan, target: Path) -> None:
        self._progress = Progress()
        self._result: Spliced | Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(plan, target), daemon=True)

    def __enter__(self) -> BackgroundSplice:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stopped.set()
        self._thread.join()

    def written(self) -> None:
        """Wait until the file is complete, though not all of it may be verified.

        Raises:
            Exception: as `splice` does.
        """
        self._progress.written.wait()
        if isinstance(self._result, Exception):
            raise self._result

    def result(self) -> Spliced:
        """Wait until the file is complete and verified.

        Raises:
            Exception: as `splice` does.
        """
        self._thread.join()
        if isinstance(self._result, Exception):
            raise self._result
        assert self._result is not None
        return self._result

    def _run(self, plan: Plan, target: Path) -> None:
        """Write the target in the thread; a failure also ends the wait for the writing."""
        try:
            self._result = splice(plan, target, self._progress)
        except Exception as error:
            self._result = error
        finally:
            self._progress.written.set()


def splice(plan: Plan, target: Path, progress: Progress) -> Spliced:
    """Write `target` as planned, unless `progress` is stopped.

    Raises:
        DamagedRecord: if a record does not match the checksum in its file.
        NotAnArchive: if a file is not an archive any more.
        OSError: if the target cannot be written.
        Stopped: if nobody waits for it any more.
    """
    with ExitStack() as stack:
        skeleton = stack.enter_context(Archive(plan.skeleton))
        sources = _all_sources(plan, skeleton)
        archives = dict[str, Members]()
        for path in {source.path for source in sources.values()}:
            archives[path] = stack.enter_context(open_members(Path(path)))
        file = stack.enter_context(target.open("w+b", buffering=0))
        read_back = ReadBack(file.fileno(), progress.stopped)
        writer = ZipWriter(file.fileno(), read_back.reached)
        with read_back:
            for name in skeleton.names_in_order():
                full_name = skeleton.full_name(name)
                source = sources.get(name)
                if source is None:
                    writer.add(full_name, _read_member(skeleton, name))
                else:
                    record = _Record(source, archives[source.path])
                    _copy_record(record, full_name, file.fileno(), writer, read_back)
            folder = skeleton.full_name("data.pkl").removesuffix("data.pkl")
            for name, make in plan.extra.items():
                writer.add(folder + name, make())
            writer.finish()
            progress.written.set()
        return Spliced(writer.position, read_back.sha256())


def _all_sources(plan: Plan, skeleton: Archive) -> dict[str, Source]:
    """Return where each record comes from: the plan's source, or else the skeleton itself."""
    sources = dict[str, Source]()
    for name in skeleton.names:
        if name.startswith("data/"):
            sources[name] = Source(str(plan.skeleton), name)
    sources.update(plan.sources)
    return sources


def _read_member(skeleton: Archive, name: str) -> bytes:
    """Return the content of a member that is not a record, with storages on the CPU again."""
    if name != "data.pkl":
        return skeleton.read(name)
    data = with_storages_on(skeleton, name, "cpu")
    if data is None:
        raise NotAnArchive("data.pkl is not written as PyTorch does")
    return data


@dataclass(frozen=True, slots=True)
class _Record:
    source: Source
    archive: Members


def _copy_record(
    record: _Record, name: str, target: int, writer: ZipWriter, read_back: ReadBack
) -> None:
    """Write a member with the content of a record; `target` is the writer's descriptor."""
    source, archive = record.source, record.archive
    start = archive.start(source.record)
    remaining = archive.size(source.record)
    crc = archive.checksum(source.record)
    writer.start(name, remaining, crc)
    end = writer.position + remaining
    expected = ExpectedChecksum(end, crc, DamagedRecord(source))
    read_back.expect(expected)
    while remaining:
        limit = min(remaining, KERNEL_COPY_BYTES)
        count = _copy_bytes(archive.fileno(), start, target, writer.position, limit)
        if not count:
            raise NotAnArchive("a file was truncated while it was being read")
        start += count
        remaining -= count
        writer.advance(count)


def _copy_bytes(source: int, start: int, target: int, position: int, count: int) -> int:
    """Copy up to `count` bytes between two descriptors, and return how many were copied."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, count, start, position)
        except OSError:
            pass  # The kernel cannot copy between these two file systems.
    data = os.pread(source, min(count, CHUNK_BYTES), start)
    return os.pwrite(target, data, position)
