"""The standard streams of this process, whatever the shell has done to them.

A stream may be closed (`>&-`), or on a full disk. Files that are opened must not get the descriptor
of a closed stream, and a message that cannot be written must not become another error.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO


class OutputStream(io.TextIOWrapper):
    """A stream that remembers why it could not be written; `failure` is None if it could."""

    failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write the text."""
        try:
            return super().write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        """Flush the text."""
        try:
            super().flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Have the caller report the failure."""
        self.failure = error
        raise error


class MessageStream(OutputStream):
    """A stream that drops text which cannot be written: there is nowhere left to report it."""

    def _fail(self, error: OSError) -> None:
        self.failure = error
        discard(self)


def prepare() -> bool:
    """Make the standard streams usable; return whether stdout was open.

    A closed stream leads to the null device. Processes that are started inherit that.
    """
    has_stdout = sys.stdout is not None
    if sys.stdin is None:
        sys.stdin = _open_null_device()
    if sys.stdout is None:
        sys.stdout = _open_null_device()
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _wrap(sys.stdout, OutputStream)
    if sys.stderr is None:
        sys.stderr = _open_null_device()
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _wrap(sys.stderr, MessageStream)
    return has_stdout


def _open_null_device() -> TextIO:
    """Open the null device on the lowest free descriptor, which is that of the closed stream."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(descriptor, True)
    return io.TextIOWrapper(open(descriptor, "r+b", buffering=0), encoding="utf-8")


def _wrap(stream: io.TextIOWrapper, kind: type[OutputStream]) -> OutputStream:
    """Return a stream of this kind that writes to the same place."""
    return kind(
        stream.buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def discard(stream: TextIO) -> None:
    """Have the descriptor of a stream lead nowhere: Python flushes it again when it exits."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def failure_of(stream: TextIO) -> OSError | None:
    """Return why a stream could not be written, if that has happened."""
    if isinstance(stream, OutputStream):
        return stream.failure
    return None
