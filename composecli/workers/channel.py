"""Typed messages over a pair of file descriptors: each a length, then JSON of that length."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

from composecli.workers.codec import NotAMessage, decode, encode

MAX_MESSAGE_BYTES = 64 * 2**20
MAX_READ_BYTES = 2**16
_LENGTH = struct.Struct(">I")


class ChannelClosed(Exception):
    """The other side closed its end."""


class DeadlineExceeded(Exception):
    """No complete message arrived before the deadline."""


class InvalidMessage(Exception):
    """The bytes that arrived are not a message of the expected type."""


class Channel:
    """One side of a connection by two pipes."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = reading
        self.writing = writing

    def send(self, message: object) -> None:
        """Write one message.

        Raises:
            ChannelClosed: if the other side has closed its end.
        """
        data = json.dumps(encode(message)).encode()
        view = memoryview(_LENGTH.pack(len(data)) + data)
        try:
            while view:
                view = view[os.write(self.writing, view) :]
        except OSError:
            raise ChannelClosed from None

    def receive(self, hint: Any, deadline: float | None = None) -> Any:
        """Return the next message, of type `hint`. `deadline` is on the monotonic clock.

        Raises:
            ChannelClosed: if the other side has closed its end.
            DeadlineExceeded: if no complete message arrives in time.
            InvalidMessage: if the message is too long, malformed or of another type.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        if length > MAX_MESSAGE_BYTES:
            raise InvalidMessage(f"a message of {length:,} bytes")
        try:
            return decode(hint, json.loads(self._read(length, deadline)))
        except (NotAMessage, ValueError, RecursionError) as error:
            raise InvalidMessage(str(error)) from None

    def _read(self, count: int, deadline: float | None) -> bytes:
        data = bytearray()
        while len(data) < count:
            if deadline is not None:
                self._wait(deadline)
            piece = os.read(self.reading, min(count - len(data), MAX_READ_BYTES))
            if not piece:
                raise ChannelClosed
            data += piece
        return bytes(data)

    def _wait(self, deadline: float) -> None:
        """Wait until there is something to read."""
        seconds = deadline - time.monotonic()
        if seconds <= 0 or not select.select([self.reading], [], [], seconds)[0]:
            raise DeadlineExceeded
