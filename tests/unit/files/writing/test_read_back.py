"""Reading back: the SHA-256 of what was written, and errors that reach the writer."""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from pathlib import Path
from typing import IO

import pytest

from composecli.files.archive import NotAnArchive
from composecli.files.writing.read_back import ExpectedChecksum, ReadBack, Stopped

DATA = bytes(range(256)) * 20_000


class Damaged(Exception):
    pass


@pytest.fixture
def file(tmp_path: Path) -> IO[bytes]:
    (tmp_path / "out").touch()
    return (tmp_path / "out").open("r+b", buffering=0)


def test_the_digest_is_that_of_the_whole_file(file: IO[bytes]) -> None:
    read_back = ReadBack(file.fileno(), threading.Event())
    with file, read_back:
        for start in range(0, len(DATA), 700_000):
            file.write(DATA[start : start + 700_000])
            read_back.reached(file.tell())
    assert read_back.sha256() == hashlib.sha256(DATA).hexdigest()


def test_each_record_is_compared_with_its_checksum(file: IO[bytes]) -> None:
    read_back = ReadBack(file.fileno(), threading.Event())
    with file, read_back:
        file.write(b"header")
        read_back.reached(6)
        read_back.expect(ExpectedChecksum(6 + len(DATA), zlib.crc32(DATA), Damaged("first")))
        file.write(DATA)
        read_back.reached(6 + len(DATA))
        read_back.expect(ExpectedChecksum(6 + len(DATA), 0, Damaged("an empty record")))
        read_back.expect(ExpectedChecksum(9 + len(DATA), 0, Damaged("second")))
        file.write(b"end")
        read_back.reached(9 + len(DATA))
    with pytest.raises(Damaged, match="second"):
        read_back.sha256()


def report_until_it_fails(read_back: ReadBack) -> None:
    """Claim that bytes are written which are not."""
    for _ in range(1000):
        read_back.reached(10)
        time.sleep(0.01)


def test_an_error_reaches_the_writer(file: IO[bytes]) -> None:
    read_back = ReadBack(file.fileno(), threading.Event())
    with file, pytest.raises(NotAnArchive, match="output was truncated"), read_back:
        report_until_it_fails(read_back)


def test_a_stopped_writer_is_interrupted(file: IO[bytes]) -> None:
    stopped = threading.Event()
    read_back = ReadBack(file.fileno(), stopped)
    stopped.set()
    with file, pytest.raises(Stopped), read_back:
        read_back.reached(0)
