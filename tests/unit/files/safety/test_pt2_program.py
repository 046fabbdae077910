"""What a torch.export archive would run is found in its JSON."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from composecli.files.archive import Archive
from composecli.files.safety.pt2_program import record_problems, unsafe_parts
from tests.unit.files.archives import write_archive

WEIGHTS = "data/weights/model_weights_config.json"
META = {
    "dtype": 34,
    "sizes": [{"as_int": 2}, {"as_int": 3}],
    "strides": [{"as_int": 3}, {"as_int": 1}],
    "storage_offset": {"as_int": 0},
    "requires_grad": False,
}


def reasons(tmp_path: Path, **members: bytes) -> list[str]:
    path = write_archive(tmp_path / "model.pt2", members)
    with Archive(path) as archive:
        return [reason.text for reason in unsafe_parts(archive)]


def spec(kind: str, context: object) -> str:
    node = {"type": kind, "context": json.dumps(context), "children_spec": []}
    return json.dumps([1, node])


PROGRAMS: list[tuple[dict[str, Any], str]] = [
    ({"nodes": [{"target": "torch.ops.aten.add.Tensor"}]}, ""),
    ({"nodes": [{"target": "torch.ops.my.op.default"}]}, "it calls the op my::op"),
    ({"nodes": [{"target": "os.system"}]}, "it calls os.system"),
    ({"nodes": [{"target": "_operator.add"}, {"target": "math.ceil"}]}, ""),
    ({"nodes": [{"target": "torch.sym_max"}]}, ""),
    ({"nodes": [{"target": "torch.ops.higher_order.cond"}]}, ""),
    ({"nodes": [{"target": "torch.ops.higher_order.run_const_graph"}]}, "it calls torch.ops.high"),
    ({"as_expr": {"expr_str": "Symbol('s0')"}}, ""),
    ({"as_expr": {"expr_str": "open('x')"}}, "it evaluates the expression open('x')"),
    ({"guards_code": ["L['x'].size()[0] == 2"]}, ""),
    ({"guards_code": ["print(1)"]}, "it evaluates the guard print(1)"),
    ({"guards_code": [3]}, "it evaluates the guard 3"),
    ({"name": "x_1"}, ""),
    ({"name": "x = 1"}, "it names a value x = 1"),
    ({"tensor_values": {"x y": {}}}, "it names a value x y"),
    ({"parameter_name": "layers.0.weight"}, ""),
    ({"parameter_name": "a;b"}, "it names a;b"),
    ({"custom_obj_values": {"x": {}}}, "it holds objects of an extension"),
    ({"out_spec": spec("builtins.dict", [])}, ""),
    ({"in_spec": spec("builtins.dict", [{"enum": "x"}])}, "it takes or returns a builtins.dict"),
    ({"in_spec": spec("collections.defaultdict", None)}, "it takes or returns a collections"),
    ({"nodes": [{"target": "torch.sym_fresh_size"}]}, "it calls torch.sym_fresh_size"),
    ({"nodes": [{"target": "torch.sym_anything"}]}, "it calls torch.sym_anything"),
    ({"nodes": [{"target": "torch._sym_sqrt"}, {"target": "math.trunc"}]}, ""),
    ({"nodes": [{"target": "torch.ops.aten.add.__setattr__"}]}, "it calls torch.ops.aten.add.__"),
    ({"nodes": [{"target": "torch.ops.aten.add.overloads"}]}, "it calls torch.ops.aten.add.over"),
    ({"nodes": [{"target": ["torch.sym_max"]}]}, "it has ['torch.sym_max'] in place of a text"),
    ({"as_expr": {"expr_str": {"a": "open('x')"}}}, "it has {'a': \"open('x')\"} in place of"),
    ({"as_expr": {"expr_str": ["s0"]}}, "it has ['s0'] in place of a text"),
    ({"hint": {"as_int": "open('x')"}}, "it has open('x') in place of a number"),
    ({"hint": {"as_int": {"a": "open('x')"}}}, "it has {'a': \"open('x')\"} in place of a num"),
    ({"as_ints": [1, "open('x')"]}, "it has open('x') in place of a number"),
    ({"as_int": 2**64}, "it has 18446744073709551616 in place of a number"),
    ({"as_float": "-Infinity"}, ""),
    ({"as_floats": [1.5, "NaN", 3]}, ""),
    ({"as_float": "open('x')"}, "it has open('x') in place of a number"),
    ({"range_constraints": {"s0": {"min_val": 2, "max_val": None}}}, ""),
    ({"range_constraints": {"u99999999999": {}}}, "it has a range of u99999999999"),
    ({"range_constraints": {"s0": {"min_val": "open('x')"}}}, "it has open('x') in place of"),
    ({"tensor_values": {"index": {"dtype": 7}, "target": {"dtype": 7}}}, ""),
    ({"forward_arg_names": ["x", "index"]}, ""),
    ({"forward_arg_names": ["x=print()"]}, "it names an argument x=print()"),
    ({"graph": {"inputs": [{"as_string": "same"}]}, "signature": {"input_specs": []}}, ""),
    (
        {"graph": {"inputs": [{"as_string": "' + print()"}]}, "signature": {"input_specs": []}},
        "it has the constant input ' + print()",
    ),
    ({"in_spec": "["}, "it takes or returns an unsupported structure"),
]


@pytest.mark.parametrize(("program", "reason"), PROGRAMS)
def test_a_program_is_checked_at_any_depth(
    tmp_path: Path, program: dict[str, Any], reason: str
) -> None:
    data = json.dumps(program if "guards_code" in program else {"graph_module": program})
    found = reasons(tmp_path, **{"models/model.json": data.encode()})
    assert len(found) == bool(reason)
    assert all(text.startswith(reason) for text in found)


def test_a_program_that_is_no_object_is_refused(tmp_path: Path) -> None:
    assert reasons(tmp_path, **{"models/model.json": b"[]"}) == ["its program is not a JSON object"]


@pytest.mark.parametrize("name", ["lib.so", "models/model.py", "data/aotinductor/a.so"])
def test_an_unknown_member_is_refused(tmp_path: Path, name: str) -> None:
    (reason,) = reasons(tmp_path, **{name: b""})
    assert name in reason


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"path_name": "weight_0", "use_pickle": False}, None),
        ({"path_name": "weight_0", "use_pickle": True}, "in a pickle"),
        ({"path_name": "weight_0"}, "in a pickle"),
        ({"path_name": "../x", "use_pickle": False}, "at ../x"),
        ({"path_name": "custom_obj_0", "use_pickle": False}, "as an object"),
        (3, "in a pickle"),
    ],
)
def test_weights_must_be_plain_records(tmp_path: Path, payload: object, reason: str | None) -> None:
    found = reasons(tmp_path, **{WEIGHTS: json.dumps({"config": {"w": payload}}).encode()})
    assert len(found) == (reason is not None)
    assert all(str(reason) in text for text in found)


def test_sample_inputs_are_checked_as_a_checkpoint(tmp_path: Path) -> None:
    name = "data/sample_inputs/model.pt"
    for value, expected in ((OrderedDict(), 0), (Path("x"), 1)):
        inner = write_archive(tmp_path / "inner", {"data.pkl": pickle.dumps(value, 2)})
        found = reasons(tmp_path, **{name: inner.read_bytes()})
        assert (len(found) > 0) == expected
        assert all("would import" in text for text in found)
    assert reasons(tmp_path, **{name: b""}) == []
    assert reasons(tmp_path, **{name: b"text"})[0].startswith(name)


def record_messages(tmp_path: Path, size: int, **changes: object) -> list[str]:
    payload = {"path_name": "weight_0", "use_pickle": False, "tensor_meta": {**META, **changes}}
    members = {
        WEIGHTS: json.dumps({"config": {"w": payload}}).encode(),
        "data/weights/weight_0": bytes(size),
    }
    with Archive(write_archive(tmp_path / "model.pt2", members)) as archive:
        return list(record_problems(archive))


def test_a_tensor_must_end_inside_of_its_record(tmp_path: Path) -> None:
    assert record_messages(tmp_path, 24) == []
    assert record_messages(tmp_path, 23) == ["w reaches to byte 24 of 23"]
    assert record_messages(tmp_path, 0, sizes=[{"as_int": 0}, {"as_int": 3}]) == []
    assert record_messages(tmp_path, 24, storage_offset={"as_int": 1})


@pytest.mark.parametrize(
    "changes",
    [{"dtype": 0}, {"sizes": [{"as_expr": {}}]}, {"strides": []}, {"sizes": 3}, {"dtype": "x"}],
)
def test_other_numbers_make_no_sense(tmp_path: Path, changes: dict[str, object]) -> None:
    assert record_messages(tmp_path, 24, **changes) == ["w has invalid sizes"]


def test_a_missing_record_is_reported(tmp_path: Path) -> None:
    payload = {"path_name": "weight_9", "use_pickle": False, "tensor_meta": META}
    members = {WEIGHTS: json.dumps({"config": {"w": payload}}).encode()}
    with Archive(write_archive(tmp_path / "model.pt2", members)) as archive:
        assert list(record_problems(archive)) == ["the record of w is missing"]
