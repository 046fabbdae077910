"""Skeletons: archives without their tensors, and pickles with another device."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from pathlib import Path

import pytest

from composecli.files import skeleton
from composecli.files.archive import Archive
from composecli.files.pickle import operations, parse
from composecli.files.skeleton import (
    has_foreign_byte_order,
    is_frozen,
    rewrite_device,
    script_skeleton,
)
from tests.unit.files.archives import write_archive


class Storage:
    """Pickled as a reference to a storage, as `torch.save` does."""

    def __init__(self, key: str, device: str) -> None:
        self.reference = ("storage", io.BytesIO, key, device, 6)


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.reference if isinstance(value, Storage) else None


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(value)
    return buffer.getvalue()


def devices(data: bytes) -> list[object]:
    return [reference.key[3] for reference in parse(data).references]  # type: ignore[index]


# Interned, so that the pickler writes it once and then refers to it.
CPU = sys.intern("cpu")
VALUE = [Storage("0", CPU), Storage("1", CPU), CPU, {"place": CPU}]
MEMBERS = {
    "data.pkl": pickled(VALUE),
    "constants.pkl": pickled((Storage("0", CPU),)),
    "code/model.py": b"pass",
    "version": b"3",
    "byteorder": sys.byteorder.encode(),
    ".storage_alignment": b"64",
    "data/0": bytes(24),
    "data/1": bytes(24),
    "constants/0": b"constant",
    "extra/about": b"{}",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "model.pt", MEMBERS)


@pytest.mark.parametrize("device", ["meta", "cpu", "cuda:0"])
def test_every_storage_moves_and_equal_texts_stay(device: str) -> None:
    data = pickled(VALUE)
    moved = rewrite_device(data, operations(data), device)
    assert moved is not None
    assert devices(moved) == [device, device]
    value = parse(moved).value
    assert isinstance(value, list)
    assert value[2] == "cpu"
    assert value[3].get("place") == "cpu"


def test_a_pickle_that_reuses_a_memo_slot_is_not_rewritten() -> None:
    data = b"\x80\x02" + b"X\x03\x00\x00\x00cpuq\x00" + b"X\x03\x00\x00\x00gpuq\x00" + b"\x86."
    assert rewrite_device(data, operations(data), "meta") is None


def test_a_reference_of_another_form_is_not_rewritten() -> None:
    data = b"\x80\x02X\x01\x00\x00\x00aQ."
    assert rewrite_device(data, operations(data), "meta") is None


def test_a_script_keeps_its_code_and_constants(path: Path) -> None:
    with Archive(path) as archive:
        data = script_skeleton(archive)
    assert data is not None
    with zipfile.ZipFile(io.BytesIO(data)) as written:
        contents = {name: written.read(name) for name in written.namelist()}
    assert contents["archive/code/model.py"] == b"pass"
    assert contents["archive/constants/0"] == b"constant"
    assert contents["archive/data/0"] == b""
    assert devices(contents["archive/data.pkl"]) == ["meta", "meta"]
    assert devices(contents["archive/constants.pkl"]) == ["cpu"]
    assert not {"archive/extra/about", "archive/.storage_alignment"} & contents.keys()


def test_code_with_large_constants_is_frozen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Archive(path) as archive:
        assert not is_frozen(archive)
        monkeypatch.setattr(skeleton, "MAX_CONSTANT_BYTES", 7)
        assert is_frozen(archive)


def test_another_byte_order_is_foreign(tmp_path: Path) -> None:
    other = "big" if sys.byteorder == "little" else "little"
    for order, expected in ((sys.byteorder, False), (other, True)):
        path = write_archive(tmp_path / order, {"byteorder": order.encode()})
        with Archive(path) as archive:
            assert has_foreign_byte_order(archive) is expected


def test_an_archive_without_a_byte_order_is_native(tmp_path: Path) -> None:
    with Archive(write_archive(tmp_path / "old", {"version": b"3"})) as archive:
        assert not has_foreign_byte_order(archive)
