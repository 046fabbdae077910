"""Splicing: the written archive has the records of its sources, and PyTorch and a strict reader
accept it."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from composecli.files.archive import Archive
from composecli.files.writing import zip_writer
from composecli.files.writing.splice import (
    BackgroundSplice,
    DamagedRecord,
    Plan,
    Progress,
    Source,
    splice,
)
from composecli.files.writing.zip_writer import ALIGNMENT

SIZES = st.lists(st.integers(0, 3_000_000) | st.integers(0, 200), min_size=1, max_size=5)


def checkpoint(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save(tensors, path)
    return path


def skeleton(path: Path, names: list[str]) -> Path:
    """Write an archive as PyTorch does, with empty records."""
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as read, zipfile.ZipFile(path, "w") as written:
        for name in read.namelist():
            written.writestr(name, read.read(name))
        for name in names:
            written.writestr(f"archive/{name}", b"")
    return path


@given(SIZES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_are_copied_unchanged(tmp_path: Path, sizes: list[int]) -> None:
    tensors = {
        str(number): torch.arange(size, dtype=torch.uint8) for number, size in enumerate(sizes)
    }
    source = checkpoint(tmp_path / "source.pt", tensors)
    names = [f"data/{number}" for number in range(len(sizes))]
    plan = Plan(
        skeleton(tmp_path / "skeleton.pt", [f"data/x{number}" for number in range(len(sizes))]),
        {f"data/x{number}": Source(str(source), name) for number, name in enumerate(names)},
        {"extra/about.json": lambda: b"{}", "extra/über": lambda: b"utf-8"},
    )
    target = tmp_path / "target.pt"
    spliced = splice(plan, target, Progress())
    data = target.read_bytes()
    assert (spliced.size, spliced.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    with Archive(target) as written, Archive(source) as read:
        for number, name in enumerate(names):
            assert b"".join(written.pieces(f"data/x{number}")) == b"".join(read.pieces(name))
            assert written.start(f"data/x{number}") % ALIGNMENT == 0
        assert written.read("extra/über") == b"utf-8"
    with zipfile.ZipFile(target) as seen:
        assert seen.testzip() is None
    assert torch.load(target, weights_only=True) == {}


def planned(tmp_path: Path, size: int = 5_000_000) -> Plan:
    source = checkpoint(tmp_path / "source.pt", {"a": torch.ones(size, dtype=torch.uint8)})
    return Plan(
        skeleton(tmp_path / "skeleton.pt", ["data/0"]),
        {"data/0": Source(str(source), "data/0")},
        {},
    )


@pytest.mark.parametrize("how", ["by the kernel", "through memory", "without such a call"])
def test_every_way_of_copying_writes_the_same_bytes(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path)
    splice(plan, tmp_path / "expected.pt", Progress())

    def refuse(*_: object) -> int:
        raise OSError("between these two it cannot")

    if how == "through memory":
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    elif how == "without such a call":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    splice(plan, tmp_path / "target.pt", Progress())
    assert (tmp_path / "target.pt").read_bytes() == (tmp_path / "expected.pt").read_bytes()


def test_a_record_with_another_checksum_is_refused(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    source = tmp_path / "source.pt"
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 1
    source.write_bytes(data)
    with pytest.raises(DamagedRecord, match="data/0"):
        splice(plan, tmp_path / "target.pt", Progress())


def test_leaving_the_context_stops_the_splice(tmp_path: Path) -> None:
    with BackgroundSplice(planned(tmp_path, 200_000_000), tmp_path / "target.pt"):
        pass
    assert (tmp_path / "target.pt").stat().st_size < 200_000_000


def test_an_error_in_the_thread_is_raised_by_result(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    with (
        BackgroundSplice(plan, tmp_path / "no folder" / "target.pt") as splicing,
        pytest.raises(FileNotFoundError),
    ):
        splicing.result()


def test_large_numbers_are_written_to_zip64_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives above 4 GB, with the limit lowered: the standard library reads their fields."""
    monkeypatch.setattr(zip_writer, "ZIP64_FROM", 1000)
    splice(planned(tmp_path), tmp_path / "target.pt", Progress())
    with zipfile.ZipFile(tmp_path / "target.pt") as seen:
        assert seen.testzip() is None
        assert seen.getinfo("archive/data/0").file_size == 5_000_000
    with Archive(tmp_path / "target.pt") as archive:
        assert archive.size("data/0") == 5_000_000
    assert torch.load(tmp_path / "target.pt", weights_only=True) == {}


@pytest.mark.long
def test_a_record_of_more_than_4_gb(tmp_path: Path) -> None:
    source = tmp_path / "source.pt"
    torch.save({"a": torch.zeros(4_400_000_000, dtype=torch.uint8)}, source)
    plan = Plan(skeleton(tmp_path / "skeleton.pt", ["data/0", "data/1"]), {
        "data/0": Source(str(source), "data/0"), "data/1": Source(str(source), "data/0"),
    }, {"extra/last": lambda: b"there"})  # fmt: skip
    splice(plan, tmp_path / "target.pt", Progress())
    with Archive(tmp_path / "target.pt") as archive:
        assert archive.size("data/1") == 4_400_000_000
        assert archive.matches_checksum("data/1")
        assert archive.read("extra/last") == b"there"
    with zipfile.ZipFile(tmp_path / "target.pt") as seen:
        assert seen.read("archive/extra/last") == b"there"
