"""Archives that two readers could read differently are refused, each for its reason."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from composecli.files import archive_checks, zip_format
from composecli.files.archive_checks import NotAnArchive, check_layout
from tests.unit.files.archives import write_archive

MEMBERS = {"data.pkl": b"\x80\x02N.", "data/0": b"12345678", "version": b"3\n"}


def layout(path: Path) -> archive_checks.Layout:
    with path.open("rb") as file:
        return check_layout(file)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "model.pt", MEMBERS)


def test_the_layout_has_every_member_and_where_it_starts(path: Path) -> None:
    found = layout(path)
    data = path.read_bytes()
    assert list(found.members) == list(MEMBERS)
    for name, content in MEMBERS.items():
        assert data[found.starts[f"archive/{name}"] :].startswith(content)
    assert data[found.directory_start :].startswith(zip_format.DIRECTORY_SIGNATURE)


def test_members_without_a_common_folder_keep_their_names(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "model.pt", {"a/x": b"1", "b/x": b"2"}, folder="")
    assert list(layout(path).members) == ["a/x", "b/x"]


def replaced(old: bytes, new: bytes, count: int = -1) -> Callable[[bytes], bytes]:
    assert len(old) == len(new)
    return lambda data: data.replace(old, new, count)


TAMPERED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "bytes before it": (lambda data: b"x" + data, "bytes before it, or between"),
    "bytes behind it": (
        lambda data: data + b"x",
        "no readable directory|bytes after its directory",
    ),
    "a comment": (lambda data: data[:-2] + b"\x01\x00x", "bytes after its directory"),
    "cut off": (lambda data: data[:-30], "no readable directory"),
    "another name in the header": (
        replaced(b"archive/data/0", b"archive/data/1", 1),
        "differs between its own header",
    ),
    "another checksum in the header": (
        replaced(struct.pack("<I", zlib.crc32(b"12345678")), b"\1\2\3\4", 1),
        "differs between its own header",
    ),
    "an encrypted member": (
        lambda data: data.replace(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00\x01", 1).replace(
            b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01", 1
        ),
        "is encrypted",
    ),
    "a name in other letters": (
        replaced(b"archive/version", b"archive/VERSION"),
        "in a letter case",
    ),
    "a name with a step up": (replaced(b"archive/data/0", b"archive/../0__"), "is named"),
    "a name with a backslash": (replaced(b"archive/data/0", b"archive/data\\0"), "is named"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_archive_is_refused(path: Path, case: str) -> None:
    tamper, reason = TAMPERED[case]
    data = path.read_bytes()
    tampered = tamper(data)
    assert tampered != data
    path.write_bytes(tampered)
    with pytest.raises(NotAnArchive, match=reason):
        layout(path)


def test_a_name_that_differs_only_in_case_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "model.pt", {"extra/a": b"1", "extra/A": b"2"})
    with pytest.raises(NotAnArchive, match="occurs twice"):
        layout(path)


def test_only_code_may_be_compressed(tmp_path: Path) -> None:
    members = {"code/a.py": b"x = 1\n" * 100, "data/0": bytes(100)}
    good = write_archive(tmp_path / "good.pt", members, compressed=("code/a.py",))
    assert layout(good).members["code/a.py"].compress_type == zip_format.DEFLATED
    bad = write_archive(tmp_path / "bad.pt", members, compressed=("data/0",))
    with pytest.raises(NotAnArchive, match="data/0 is compressed"):
        layout(bad)


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"code/a.py": bytes(10**6)}
    path = write_archive(tmp_path / "model.pt", members, compressed=members)
    with pytest.raises(NotAnArchive, match="grows from"):
        layout(path)
    monkeypatch.setattr(archive_checks, "MAX_UNPACKED_BYTES", 10**5)
    with pytest.raises(NotAnArchive, match="its code has 1,000,000 bytes"):
        layout(path)


def test_a_gap_between_members_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/a", b"1")
        assert archive.fp is not None
        archive.fp.write(b"hidden")
        archive.start_dir = archive.fp.tell()
        archive.writestr("archive/b", b"2")
    with pytest.raises(NotAnArchive, match="does not follow the member before it"):
        layout(path)


class Unseekable(io.RawIOBase):
    """A stream, in which zipfile writes the sizes behind each member."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self.file.write(bytes(data))


def test_sizes_behind_a_member_must_be_those_of_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with path.open("wb") as file, zipfile.ZipFile(Unseekable(file), "w") as archive:
        archive.writestr("archive/a", b"12345678")
    assert list(layout(path).members) == ["a"]
    data = path.read_bytes()
    path.write_bytes(data.replace(b"12345678PK\x07\x08", b"12345678PK\x07\x09"))
    with pytest.raises(NotAnArchive, match="differs between the record after it"):
        layout(path)


def test_too_many_members_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_checks, "MAX_MEMBERS", 2)
    with pytest.raises(NotAnArchive, match="its directory is inconsistent"):
        layout(path)
