"""Reading a file back while it is written, for its SHA-256 and the checksums of its records."""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from composecli.files.archive import CHUNK_BYTES, NotAnArchive

# Of the thread: others wait for the writer, and nobody waits for the reader until the end.
_NICENESS = 10


class Stopped(Exception):
    """Nobody waits for the file any more."""


@dataclass(frozen=True, slots=True)
class ExpectedChecksum:
    """The CRC-32 of the bytes from here up to `end`, and the error if it differs."""

    end: int
    crc: int
    mismatch: Exception


class ReadBack:
    """A thread that follows the writer of a file, and reads the bytes back.

    Setting `stopped` ends both: the thread, and the writer's next call of `reached`.
    """

    def __init__(self, descriptor: int, stopped: threading.Event) -> None:
        self._descriptor = descriptor
        self._stopped = stopped
        # Positions that the writer reached, checksums that begin there, and None at the end.
        self._messages = queue.SimpleQueue[int | ExpectedChecksum | None]()
        self._sha256 = hashlib.sha256()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._stopped.set()
        self._messages.put(None)
        self._thread.join()

    def expect(self, checksum: ExpectedChecksum) -> None:
        """Verify the record that starts at the position that was reached last."""
        self._messages.put(checksum)

    def reached(self, position: int) -> None:
        """Read up to `position`, to which the writer has written.

        Raises:
            Exception: the error of the thread, such as a record's `mismatch`.
            Stopped: if nobody waits for the file any more.
        """
        if self._failure is not None:
            raise self._failure
        if self._stopped.is_set():
            raise Stopped
        self._messages.put(position)

    def sha256(self) -> str:
        """Return the SHA-256 of the whole file, in hexadecimal, after the context has ended.

        Raises:
            Exception: the error of the thread, such as a record's `mismatch`.
        """
        if self._failure is not None:
            raise self._failure
        return self._sha256.hexdigest()

    def _run(self) -> None:
        """Follow the writer, and keep a failure for the thread that waits."""
        _lower_priority()
        try:
            self._follow()
        except Exception as error:
            self._failure = error

    def _follow(self) -> None:
        """Read up to each position, and compare the checksums of the ranges that end there."""
        position = crc = 0
        expected: ExpectedChecksum | None = None
        while True:
            message = self._messages.get()
            if message is None:
                return
            if isinstance(message, ExpectedChecksum):
                expected = message
                crc = 0
            else:
                for data in self._read(position, message):
                    if expected is not None:
                        crc = zlib.crc32(data, crc)
                position = message
            if expected is not None and position == expected.end:
                if crc != expected.crc:
                    raise expected.mismatch
                expected = None

    def _read(self, position: int, end: int) -> Iterator[bytes]:
        """Yield the bytes between two positions, once they are in the SHA-256."""
        while position < end:
            if self._stopped.is_set():
                raise Stopped
            count = min(CHUNK_BYTES, end - position)
            data = os.pread(self._descriptor, count, position)
            if not data:
                raise NotAnArchive("the output was truncated while it was being written")
            self._sha256.update(data)
            position += len(data)
            yield data


def _lower_priority() -> None:
    """Let other work have the cores: on Linux, a thread has a priority of its own."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
