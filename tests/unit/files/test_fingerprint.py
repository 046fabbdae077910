"""Fingerprints differ if the content does, and tensors are not read for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from composecli.files import skeleton
from composecli.files.archive import Archive
from composecli.files.fingerprint import fingerprint, hash_records, stat_key
from tests.checkpoints import OLD_FORMAT
from tests.unit.files.archives import write_archive

MEMBERS = {
    "data.pkl": b"\x80\x02N.",
    "version": b"3",
    "data/0": bytes(24),
    "data/weights/weight_0": bytes(16),
    "constants/0": b"constant",
}


def overwrite(path: Path, name: str) -> None:
    """Change the first byte of a member, without its checksum."""
    with Archive(path) as archive:
        start = archive.start(name)
    data = bytearray(path.read_bytes())
    data[start] ^= 1
    path.write_bytes(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "model.pt", MEMBERS)


def test_the_same_content_has_the_same_fingerprint(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(path.read_bytes())
    assert fingerprint(str(copy)) == fingerprint(str(path)) is not None


@pytest.mark.parametrize("name", MEMBERS)
def test_another_content_of_any_member_has_another_fingerprint(tmp_path: Path, name: str) -> None:
    one = write_archive(tmp_path / "one.pt", MEMBERS)
    other = write_archive(tmp_path / "other.pt", {**MEMBERS, name: MEMBERS[name] + b"x"})
    assert fingerprint(str(one)) != fingerprint(str(other))


@pytest.mark.parametrize("name", ["data/0", "data/weights/weight_0"])
def test_the_bytes_of_tensors_are_not_read(path: Path, name: str) -> None:
    before = fingerprint(str(path))
    overwrite(path, name)
    assert fingerprint(str(path)) == before


def test_small_members_are_verified(path: Path) -> None:
    overwrite(path, "constants/0")
    assert fingerprint(str(path)) is None


def test_large_constants_are_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skeleton, "MAX_CONSTANT_BYTES", 1)
    before = fingerprint(str(path))
    overwrite(path, "constants/0")
    assert fingerprint(str(path)) == before is not None


def test_records_are_hashed_by_their_bytes(path: Path) -> None:
    before = hash_records(str(path), ("data/0",)), hash_records(str(path), ())
    overwrite(path, "data/0")
    after = hash_records(str(path), ("data/0",)), hash_records(str(path), ())
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert hash_records(str(path), ("data/9",)) is None


def test_a_compressed_member_at_the_end_is_hashed(tmp_path: Path) -> None:
    name = "code/__torch__.py"
    hashes = set[str | None]()
    for text in ("x = 1\n", "x = 2\n"):
        members = {**MEMBERS, name: text.encode() * 10_000}
        path = write_archive(tmp_path / "model.pt", members, compressed=[name])
        hashes.add(hash_records(str(path), ()))
    assert len(hashes - {None}) == 2


def test_other_files_have_no_fingerprint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("text")
    for name in ("pipe", "text", "none", "."):
        assert fingerprint(str(tmp_path / name)) is None
    assert hash_records(str(tmp_path / "text"), ()) is None


def test_the_stat_key_changes_with_the_file(path: Path, tmp_path: Path) -> None:
    before = stat_key(str(path))
    assert stat_key(str(path)) == before
    os.utime(path, (1, 1))
    assert stat_key(str(path)) != before
    assert stat_key(str(tmp_path / "none")) == stat_key("nul\0l") == ()


def test_a_file_in_the_old_format_is_hashed_to_its_last_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.pt"
    torch.save({"a": torch.ones(3), "b": torch.ones(2)}, path, **OLD_FORMAT)
    before, records = fingerprint(str(path)), hash_records(str(path), ())
    assert before is not None
    assert records is not None
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert fingerprint(str(path)) not in (before, None)
    assert hash_records(str(path), ()) not in (records, None)
    path.write_bytes(data[:-1])
    assert fingerprint(str(path)) is None
    path.write_bytes(data)
    monkeypatch.setattr("composecli.files.fingerprint.MAX_OLD_BYTES", 100)
    assert fingerprint(str(path)) is None
