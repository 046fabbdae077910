"""Archives: members are read once, and verified."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import pytest

from composecli.files import archive as archive_module
from composecli.files.archive import Archive, NotAnArchive, damaged_records
from composecli.files.members import lacks_checksums
from composecli.files.pickle import NotAPickle, PickleDict
from tests.unit.files.archives import write_archive

MEMBERS = {
    "data.pkl": pickle.dumps({"a": 1}, 2),
    "code/model.py": b"def forward(self): ...\n" * 20,
    "about.json": b'{"version": 3}',
    "data/0": bytes(range(256)) * 9000,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "model.pt", MEMBERS, compressed=("code/model.py",))


def damage(path: Path, content: bytes) -> None:
    data = path.read_bytes()
    start = data.index(content)
    path.write_bytes(data[:start] + bytes([data[start] ^ 1]) + data[start + 1 :])


def test_members_are_named_without_their_folder(path: Path) -> None:
    with Archive(path) as archive:
        assert archive.names == frozenset(MEMBERS)
        assert archive.names_in_order() == tuple(MEMBERS)
        assert archive.full_name("data/0") == "archive/data/0"
        assert archive.size("data/0") == len(MEMBERS["data/0"])


def test_stored_and_compressed_members_are_read(path: Path) -> None:
    with Archive(path) as archive:
        for name, content in MEMBERS.items():
            assert archive.read(name) == content
        assert b"".join(archive.pieces("data/0")) == MEMBERS["data/0"]
        assert archive.checksum("data/0") == zlib.crc32(MEMBERS["data/0"])
        assert archive.json("about.json") == {"version": 3}
        value = archive.pickle("data.pkl").value
    assert isinstance(value, PickleDict)
    assert value.get("a") == 1


def test_the_content_starts_where_the_archive_says(path: Path) -> None:
    with Archive(path) as archive:
        start = archive.start("data/0")
        assert path.read_bytes()[start:].startswith(MEMBERS["data/0"])
        assert path.read_bytes().endswith(archive.directory_bytes())


def test_a_member_that_was_read_stays_as_it_was(path: Path) -> None:
    with Archive(path) as archive:
        before = archive.read("about.json")
        damage(path, b'{"version')
        assert archive.read("about.json") == before


@pytest.mark.parametrize("name", ["about.json", "data/0"])
def test_a_member_with_another_checksum_is_damaged(path: Path, name: str) -> None:
    damage(path, MEMBERS[name])
    with Archive(path) as archive:
        assert not archive.matches_checksum(name)
        with pytest.raises(NotAnArchive, match="does not match its checksum"):
            archive.read(name)
    assert damaged_records(str(path)) == (f"{name} does not match its checksum",)


def test_damaged_code_does_not_match_its_checksum(path: Path) -> None:
    with Archive(path) as archive:
        start = archive.start("code/model.py")
    data = bytearray(path.read_bytes())
    data[start + 5] ^= 0xFF
    path.write_bytes(data)
    with Archive(path) as archive:
        assert not archive.matches_checksum("code/model.py")
        assert archive.matches_checksum("data/0")


def test_what_is_not_there_or_not_json_or_not_a_pickle_is_an_error(path: Path) -> None:
    with Archive(path) as archive:
        with pytest.raises(NotAnArchive, match="version is missing"):
            archive.read("version")
        with pytest.raises(NotAnArchive, match=r"data\.pkl"):
            archive.json("data.pkl")
        with pytest.raises(NotAPickle):
            archive.pickle("about.json")


def test_a_large_member_is_not_read_as_text(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_TEXT_BYTES", 1000)
    with Archive(path) as archive, pytest.raises(NotAnArchive, match="2,304,000 bytes"):
        archive.read("data/0")


def test_an_archive_can_be_a_member_of_another(path: Path) -> None:
    with Archive.of_bytes(path.read_bytes()) as archive:
        assert archive.read("about.json") == MEMBERS["about.json"]


def test_an_archive_without_checksums_is_read_unverified(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "model.pt", {"a": b"one", "b": b"two"})
    data = path.read_bytes()
    for content in (b"one", b"two"):
        data = data.replace(zlib.crc32(content).to_bytes(4, "little"), bytes(4))
    path.write_bytes(data)
    assert lacks_checksums(str(path))
    assert damaged_records(str(path)) == ()
    with Archive(path) as archive:
        assert archive.read("a") == b"one"
        assert archive.checksum("b") == zlib.crc32(b"two")


def test_a_file_that_is_not_an_archive_has_no_damaged_records(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("no archive")
    assert damaged_records(str(path)) == ()
    assert not lacks_checksums(str(path))
