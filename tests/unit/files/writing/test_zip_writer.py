"""Written archives are aligned, readable by the standard library, and zip64 if needed."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import pytest

from composecli.files.archive import Archive
from composecli.files.writing import zip_writer
from composecli.files.writing.zip_writer import ALIGNMENT, ZipWriter

MEMBERS = {"archive/data.pkl": b"\x80\x02N.", "archive/data/0": bytes(5000), "archive/über": b"u"}


def write(path: Path) -> list[int]:
    """Write the members, one of them in two pieces, and return the positions that were reported."""
    positions = list[int]()
    with path.open("wb", buffering=0) as file:
        writer = ZipWriter(file.fileno(), positions.append)
        for name, data in MEMBERS.items():
            if not name.endswith("/0"):
                writer.add(name, data)
                continue
            writer.start(name, len(data), zlib.crc32(data))
            for piece in (data[:100], data[100:]):
                os.pwrite(file.fileno(), piece, writer.position)
                writer.advance(len(piece))
        writer.finish()
    return positions


@pytest.mark.parametrize("limit", [2**32 - 1, 1000, 0])
def test_what_is_written_is_read_by_both_readers(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a lower limit, the same numbers are written to zip64 fields."""
    monkeypatch.setattr(zip_writer, "ZIP64_FROM", limit)
    path = tmp_path / "model.pt"
    positions = write(path)
    assert positions == sorted(positions)
    assert positions[-1] == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == MEMBERS
    with Archive(path) as strict:
        for name, data in MEMBERS.items():
            own = name.removeprefix("archive/")
            assert strict.read(own) == data
            assert strict.start(own) % ALIGNMENT == 0


def test_more_members_than_a_narrow_field_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0x10001
    path = tmp_path / "many.pt"
    with path.open("wb", buffering=0) as file:
        writer = ZipWriter(file.fileno(), lambda _: None)
        for number in range(count):
            writer.add(f"a/{number}", b"")
        writer.finish()
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == count
    with Archive(path) as strict:
        assert len(strict.names) == count
