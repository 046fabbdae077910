"""Messages arrive whole, in order and in time, or the receiver learns why not."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

import pytest

from composecli.workers.channel import (
    MAX_MESSAGE_BYTES,
    Channel,
    ChannelClosed,
    DeadlineExceeded,
    InvalidMessage,
)
from composecli.workers.protocol import AnyReply, Described, Done, LayerRow


@pytest.fixture
def channel() -> Iterator[Channel]:
    """A channel to itself."""
    loop = Channel(*os.pipe())
    yield loop
    for descriptor in (loop.reading, loop.writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_messages_arrive_in_order(channel: Channel) -> None:
    row = LayerRow(1, "fc", "Linear", "[2, 5]", 55)
    channel.send(Described((row,)))
    channel.send(Done())
    assert channel.receive(AnyReply) == Described((row,))
    assert channel.receive(AnyReply) == Done()


def test_receiving_stops_at_the_deadline(channel: Channel) -> None:
    with pytest.raises(DeadlineExceeded):
        channel.receive(AnyReply, time.monotonic() + 0.05)
    os.write(channel.writing, struct.pack(">I", 400) + b"{")
    with pytest.raises(DeadlineExceeded):
        channel.receive(AnyReply, time.monotonic() + 0.05)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 2) + b"{}",
        struct.pack(">I", 3) + b"abc",
        struct.pack(">I", MAX_MESSAGE_BYTES + 1),
    ],
    ids=["no type", "not JSON", "too long"],
)
def test_other_bytes_are_not_a_message(channel: Channel, data: bytes) -> None:
    os.write(channel.writing, data)
    with pytest.raises(InvalidMessage):
        channel.receive(AnyReply)


def test_closed_writing_end_is_noticed_by_the_receiver(channel: Channel) -> None:
    os.close(channel.writing)
    with pytest.raises(ChannelClosed):
        channel.receive(AnyReply)


def test_closed_reading_end_is_noticed_by_the_sender(channel: Channel) -> None:
    os.close(channel.reading)
    with pytest.raises(ChannelClosed):
        channel.send(Done())
