"""The layout of torch.export archives: which member is what, and where tensors are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from composecli.files.archive import Archive, NotAnArchive
from composecli.files.pt2_layout import (
    Geometry,
    TensorMeta,
    dtype_of,
    geometry_of,
    index_entries,
    is_known_member,
    is_object_record,
    is_record_name,
    is_tensor_record,
    looks_exported,
    parse_floats,
    program_members,
)
from tests.unit.files.archives import write_archive

META: TensorMeta = {
    "dtype": 28,
    "sizes": [{"as_int": 2}, {"as_int": 3}],
    "strides": [{"as_int": 3}, {"as_int": 1}],
    "storage_offset": {"as_int": 1},
    "requires_grad": False,
}


def payload(path_name: str, **changes: object) -> dict[str, Any]:
    return {"path_name": path_name, "use_pickle": False, "tensor_meta": META, **changes}


def index(**entries: object) -> bytes:
    return json.dumps({"config": entries}).encode()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("archive_format", True),
        (".data/serialization_id", True),
        ("models/model.json", True),
        ("models/a.b-c.json", True),
        ("models/sub/model.json", False),
        ("models/model.py", False),
        ("data/weights/weight_0", True),
        ("data/constants/model_constants_config.json", True),
        ("data/sample_inputs/model.pt", True),
        ("data/aotinductor/model/lib.so", False),
        ("extra/any/thing", True),
        ("code/model.py", False),
    ],
)
def test_members_are_known_by_their_names(name: str, expected: bool) -> None:
    assert is_known_member(name) is expected


def test_records_are_told_from_objects_and_from_indices() -> None:
    assert is_tensor_record("data/weights/weight_12")
    assert is_tensor_record("data/constants/tensor_0")
    assert not is_tensor_record("data/weights/model_weights_config.json")
    assert is_record_name("weight_0")
    assert not is_record_name("../weight_0")
    assert is_object_record("custom_obj_0")
    assert not is_object_record("weight_0")


def test_an_archive_of_an_older_layout_looks_exported() -> None:
    assert looks_exported(frozenset(("archive_format", "models/model.json")))
    assert looks_exported(frozenset(("serialized_exported_program.json", "version")))
    assert not looks_exported(frozenset(("archive_format", "data.pkl")))
    assert not looks_exported(frozenset(("model.json",)))


def test_the_entries_of_all_indices_are_read(tmp_path: Path) -> None:
    members = {
        "models/model.json": b"{}",
        "models/other.json": b"{}",
        "data/constants/model_constants_config.json": index(table=payload("tensor_0")),
        "data/weights/model_weights_config.json": index(
            weight=payload("weight_0"),
            pickled=payload("weight_1", use_pickle=True),
            opaque=payload("custom_obj_0", tensor_meta=None),
            nonsense=3,
        ),
        "data/weights/weight_0": b"",
    }
    with Archive(write_archive(tmp_path / "model.pt2", members)) as archive:
        entries = {entry.name: entry for entry in index_entries(archive)}
        assert program_members(archive) == ("models/model.json", "models/other.json")
    assert {name for name, entry in entries.items() if entry.is_plain} == {"weight", "table"}
    assert entries["weight"].record == "data/weights/weight_0"
    assert entries["table"].record == "data/constants/tensor_0"


@pytest.mark.parametrize("data", [b"[]", b"3", b'{"config": []}'])
def test_an_index_of_another_shape_has_no_entries(tmp_path: Path, data: bytes) -> None:
    members = {"data/weights/model_weights_config.json": data}
    with Archive(write_archive(tmp_path / "model.pt2", members)) as archive:
        assert list(index_entries(archive)) == []


def test_an_index_that_is_not_json_is_damage(tmp_path: Path) -> None:
    members = {"data/weights/model_weights_config.json": b"{"}
    with (
        Archive(write_archive(tmp_path / "model.pt2", members)) as archive,
        pytest.raises(NotAnArchive),
    ):
        list(index_entries(archive))


def test_dtype_and_geometry_are_read() -> None:
    assert dtype_of(META).name == "uint16"
    assert geometry_of(META) == Geometry((2, 3), (3, 1), 1)


def test_an_unknown_code_and_a_symbolic_size_are_key_errors() -> None:
    with pytest.raises(KeyError):
        dtype_of({**META, "dtype": 0})
    with pytest.raises(KeyError):
        geometry_of({**META, "sizes": [{"as_expr": {"expr_str": "Symbol('s0')"}}]})


def test_infinite_floats_are_read_from_their_text() -> None:
    infinite = float("inf")
    assert parse_floats("-Infinity") == -infinite
    assert parse_floats([[1.5, "Infinity"], [2.0]]) == [[1.5, infinite], [2.0]]
    assert str(parse_floats("NaN")) == "nan"
    with pytest.raises(ValueError, match="could not convert"):
        parse_floats("none")
