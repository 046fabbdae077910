"""Streams that cannot be written."""

from __future__ import annotations

import io
import os

import pytest

from composecli.streams import MessageStream, OutputStream, failure_of


class Full(io.RawIOBase):
    """A device that is full."""

    name = "full"

    def __init__(self) -> None:
        self.reading, self.descriptor = os.pipe()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


def test_an_output_remembers_why_it_failed() -> None:
    stream = OutputStream(Full(), write_through=True)
    assert failure_of(stream) is None
    with pytest.raises(OSError, match="No space"):
        stream.write("text\n")
    failure = failure_of(stream)
    assert failure is not None
    assert failure.errno == 28


def test_a_message_that_cannot_be_written_is_dropped() -> None:
    full = Full()
    stream = MessageStream(full, write_through=True)
    assert stream.write("text\n") == 5
    assert os.fstat(full.descriptor).st_rdev == os.stat(os.devnull).st_rdev
    os.close(full.reading)
    os.close(full.descriptor)


def test_a_stream_of_another_kind_has_no_known_failure() -> None:
    assert failure_of(io.StringIO()) is None
