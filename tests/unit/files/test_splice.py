"""Splicing: a written archive holds what its sources hold, and is one that PyTorch and a strict reader take."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from composecli.files.archive import Archive
from composecli.files.writing import splice as module
from composecli.files.writing.digests import Digests
from composecli.files.writing.splice import (
    ALIGNMENT,
    BackgroundSplice,
    DamagedRecord,
    Plan,
    Progress,
    Source,
    splice,
)

SIZES = st.lists(st.integers(0, 3_000_000) | st.integers(0, 200), min_size=1, max_size=5)


def checkpoint(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save(tensors, path)
    return path


def skeleton(path: Path, names: list[str]) -> Path:
    """An archive of PyTorch's form, whose records are empty."""
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
def test_records_arrive_as_they_were(tmp_path: Path, sizes: list[int]) -> None:
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
def test_every_way_of_copying_gives_the_same(
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


def test_a_record_that_is_not_what_was_written_is_refused(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    source = tmp_path / "source.pt"
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 1
    source.write_bytes(data)
    with pytest.raises(DamagedRecord, match="data/0"):
        splice(plan, tmp_path / "target.pt", Progress())


def test_what_nobody_waits_for_stops(tmp_path: Path) -> None:
    with BackgroundSplice(planned(tmp_path, 200_000_000), tmp_path / "target.pt"):
        pass
    assert (tmp_path / "target.pt").stat().st_size < 200_000_000


def test_a_failure_in_the_thread_arrives(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    with (
        BackgroundSplice(plan, tmp_path / "no folder" / "target.pt") as splicing,
        pytest.raises(FileNotFoundError),
    ):
        splicing.result()


def test_large_numbers_are_written_in_their_own_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written for more than 4 GB, with the bound at a few bytes; the standard library reads it."""
    monkeypatch.setattr(module, "_WIDE_FROM", 1000)
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


def test_who_waits_for_a_digest_is_told_that_it_will_not_come(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 10**13)
    with Digests((str(large),)) as digests:
        threading.Timer(0.1, digests.close).start()
        with pytest.raises(OSError, match="anceled"):
            digests.of(str(large))


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1" * 3_000_000)
    other.write_bytes(b"")
    with Digests((str(one), str(other), str(one), str(tmp_path / "none"))) as digests:
        assert digests.of(str(other)) == hashlib.sha256(b"").hexdigest()
        assert digests.of(str(one)) == hashlib.sha256(b"1" * 3_000_000).hexdigest()
        with pytest.raises(FileNotFoundError):
            digests.of(str(tmp_path / "none"))
        assert digests.changed() == ()
        one.write_bytes(b"2")
        assert digests.changed() == (str(one),)
