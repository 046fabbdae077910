"""The old format: what is read of it, and the files in it that are refused."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.errors import Problem
from composecli.core.model_ref import ModelKind
from composecli.files.archive import NotAnArchive
from composecli.files.members import lacks_checksums, open_members
from composecli.files.old_format import MAGIC_NUMBER, PROTOCOL_VERSION, OldFormat, is_old_format
from composecli.files.sniff import ModelFile, WeightsFile, sniff

FACTS = {"protocol_version": PROTOCOL_VERSION, "little_endian": False, "type_sizes": {"int": 4}}


def saved(value: object, **options: Any) -> bytes:
    data = io.BytesIO()
    torch.save(value, data, _use_new_zipfile_serialization=False, **options)
    return data.getvalue()


def opened(tmp_path: Path, data: bytes) -> OldFormat:
    path = tmp_path / "old.pth"
    path.write_bytes(data)
    members = open_members(path)
    assert isinstance(members, OldFormat)
    return members


class Reference:
    """Pickled as a reference to a storage of float32."""

    def __init__(self, *key: object) -> None:
        self.key = ("storage", torch.FloatStorage, *key)


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.key if isinstance(value, Reference) else None


def written(value: object, storages: dict[str, list[float]], count: int | None = None) -> bytes:
    """A file as an old PyTorch wrote it; `count` replaces the stated numbers of items."""
    data = io.BytesIO()
    for item in (MAGIC_NUMBER, PROTOCOL_VERSION, FACTS):
        pickle.dump(item, data, 2)
    Pickler(data, 2).dump(value)
    pickle.dump(sorted(storages), data, 2)
    for key in sorted(storages):
        items = storages[key]
        data.write(struct.pack("<q", len(items) if count is None else count))
        data.write(struct.pack(f"<{len(items)}f", *items))
    return data.getvalue()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_recognized_and_read(tmp_path: Path, protocol: int) -> None:
    data = saved({"w": torch.arange(6.0)}, pickle_protocol=protocol)
    assert is_old_format(data)
    with opened(tmp_path, data) as members:
        (name,) = members.names - {"data.pkl"}
        assert b"".join(members.pieces(name)) == torch.arange(6.0).numpy().tobytes()
        assert members.size(name) == 24
    assert lacks_checksums(str(tmp_path / "old.pth"))


def test_modules_and_weights_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    path.write_bytes(saved(nn.Linear(2, 3)))
    found = sniff(str(path))
    assert isinstance(found, ModelFile)
    assert found.kind is ModelKind.PICKLED
    assert found.refusal() is None
    path.write_bytes(saved(nn.Linear(2, 3).state_dict()))
    weights = sniff(str(path))
    assert isinstance(weights, WeightsFile)
    assert weights.keys == ("weight", "bias")


def test_what_other_machines_wrote_is_read_as_little_endian(tmp_path: Path) -> None:
    with opened(tmp_path, written([Reference("0", "cpu", 2, None)], {"0": [1.0, 2.0]})) as members:
        assert members.byte_order() == b"little"
        assert struct.unpack("<2f", b"".join(members.pieces("data/0"))) == (1.0, 2.0)


def test_a_view_is_a_part_of_another_storage(tmp_path: Path) -> None:
    value = [Reference("0", "cpu", 4, None), Reference("0", "cpu", 4, ("7", 1, 2))]
    with opened(tmp_path, written(value, {"0": [1.0, 2.0, 3.0, 4.0]})) as members:
        assert struct.unpack("<2f", b"".join(members.pieces("data/7"))) == (2.0, 3.0)
        assert members.start("data/7") == members.start("data/0") + 4
        whole, view = members.pickle("data.pkl").references
        assert isinstance(whole.key, tuple)
        assert isinstance(view.key, tuple)
        assert (whole.key[2], whole.key[4]) == ("0", 4)
        assert (view.key[2], view.key[4]) == ("7", 2)


def cut(count: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:-count]


WHOLE = [Reference("0", "cpu", 2, None)]
DAMAGED: dict[str, tuple[bytes, str]] = {
    "the end of the storages is missing": (saved({"w": torch.ones(4)})[:-1], "behind its end"),
    "all storages are missing": (saved({"w": torch.ones(4)})[:-24], "ends early"),
    "a pickle is cut": (saved({"w": torch.ones(4)})[:60], "ValueError"),
    "there are more bytes": (saved({"w": torch.ones(4)}) + b"\0", "1 bytes after its storages"),
    "a negative count": (written(WHOLE, {"0": [1.0, 2.0]}, -1), "behind its end"),
    "a count beyond the file": (written(WHOLE, {"0": [1.0, 2.0]}, 2**60), "behind its end"),
    "a storage without a reference": (written([], {"0": [1.0]}), "nothing refers to storage 0"),
    "a view behind its storage": (
        written([Reference("0", "cpu", 2, ("1", 1, 2))], {"0": [1.0, 2.0]}),
        "leaves storage 0",
    ),
    "a view with a negative offset": (
        written([Reference("0", "cpu", 2, ("1", -1, 2))], {"0": [1.0, 2.0]}),
        "invalid sizes",
    ),
    "a key that is a path": (written([Reference("../0", "cpu", 1, None)], {}), "not a number"),
    "another version": (
        saved({}).replace(b"\x80\x02M\xe9\x03.", b"\x80\x02M\xe8\x03."),
        "another version",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    data, words = DAMAGED[name]
    path = tmp_path / "old.pth"
    path.write_bytes(data)
    with pytest.raises(NotAnArchive, match=words):
        open_members(path)
    found = sniff(str(path))
    assert isinstance(found, Problem)
    assert found.code == "CC904"


def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    data = saved({"w": torch.ones(4)})
    # BININT1 4 in a tuple of one: the sizes of the tensor.
    assert data.count(b"K\x04\x85") == 1
    path.write_bytes(data.replace(b"K\x04\x85", b"K\x05\x85"))
    found = sniff(str(path))
    assert isinstance(found, Problem)
    assert found.code == "CC927"


def test_a_huge_text_in_a_small_file_takes_no_memory(tmp_path: Path) -> None:
    head = pickle.dumps(MAGIC_NUMBER, 2) + pickle.dumps(PROTOCOL_VERSION, 2)
    path = tmp_path / "old.pth"
    path.write_bytes(head + b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a.")
    with pytest.raises(NotAnArchive, match="bytes of pickles"):
        open_members(path)
