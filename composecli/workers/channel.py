"""Frames: typed messages over a pair of file descriptors, each a length and JSON of that length."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

from composecli.workers.codec import NotAMessage, decode, encode

LARGEST = 64 * 2**20
_LENGTH = struct.Struct(">I")


class ChannelClosed(Exception):
    """The other side closed its end."""


class DeadlineExceeded(Exception):
    """Nothing whole came before the deadline."""


class InvalidMessage(Exception):
    """What came is no message."""


class Channel:
    """One side of the pipe."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = reading
        self.writing = writing

    def send(self, message: object) -> None:
        """Write one message; NoFrame where nobody reads any more."""
        data = json.dumps(encode(message)).encode()
        view = memoryview(_LENGTH.pack(len(data)) + data)
        try:
            while view:
                view = view[os.write(self.writing, view) :]
        except (BrokenPipeError, OSError):
            raise ChannelClosed from None

    def receive(self, hint: Any, deadline: float | None = None) -> Any:
        """The next message, of type `hint`. `deadline` is on the monotonic clock.

        Raises:
            NoFrame, Late, Nonsense: what the names say.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        if length > LARGEST:
            raise InvalidMessage(f"a message of {length:,} bytes")
        try:
            return decode(hint, json.loads(self._read(length, deadline)))
        except (NotAMessage, ValueError, RecursionError) as error:
            raise InvalidMessage(str(error)) from None

    def _read(self, count: int, deadline: float | None) -> bytes:
        data = bytearray()
        while len(data) < count:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self.reading], [], [], left)[0]:
                    raise DeadlineExceeded
            piece = os.read(self.reading, min(count - len(data), 2**16))
            if not piece:
                raise ChannelClosed
            data += piece
        return bytes(data)
