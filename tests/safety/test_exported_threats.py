"""Hostile torch.export archives: what PyTorch would import, evaluate or compute from their JSON."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from composecli.runtime.pt2.nodes import Unsupported
from composecli.runtime.pt2.tree_spec import read_spec
from tests.commands.running import Composecli, Installed
from tests.safety.fixtures import Change, exported, in_json, rewritten

Edit = Callable[[Any], None]

PROGRAM = "models/model.json"
# A module beside the model, which creates the marker when it is imported.
MODULE = "imported_by_a_model"
ENUM = {"__enum__": True, "fqn": f"{MODULE}:Thing", "name": "A"}
LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
TOWER = "Pow(Integer(9), Pow(Integer(9), Pow(Integer(9), Integer(9))))"


def touch(marker: str) -> str:
    return f"__import__('pathlib').Path('{marker}').touch()"


def signature(program: Any) -> Any:
    return program["graph_module"]["module_call_graph"][0]["signature"]


def in_tree(kind: str, context: object, place: str = "out_spec") -> Edit:
    """Return a change that puts a container with one leaf into the structure of the results."""

    def change(program: Any) -> None:
        inner = {"type": kind, "context": context, "children_spec": [LEAF]}
        signature(program)[place] = json.dumps([1, inner])

    return change


def in_submodule(program: Any) -> None:
    """Put an enum into the signature of another call than that of the whole model."""
    inner = {"type": "builtins.tuple", "context": json.dumps(ENUM), "children_spec": [LEAF]}
    call = {**signature(program), "in_spec": json.dumps([1, inner])}
    graph = program["graph_module"]["module_call_graph"]
    graph.append({"fqn": "fc", "signature": call})


def keyword(program: Any) -> None:
    """Give the model an argument whose name is Python source with a default value."""
    protocol, call = json.loads(signature(program)["in_spec"])
    positional, named = call["children_spec"]
    named["context"] = json.dumps([f"x={touch('MARK')}"])
    named["children_spec"] = positional["children_spec"]
    positional["children_spec"] = []
    signature(program)["in_spec"] = json.dumps([protocol, call])
    signature(program)["forward_arg_names"] = []


def argument_name(program: Any) -> None:
    signature(program)["forward_arg_names"] = [f"x={touch('MARK')}"]


def sizes(program: Any) -> list[Any]:
    values = program["graph_module"]["graph"]["tensor_values"].values()
    return [size for value in values for size in value["sizes"] if "as_expr" in size]


def expression(text: object) -> Edit:
    def change(program: Any) -> None:
        for size in sizes(program):
            size["as_expr"]["expr_str"] = text

    return change


def hint(value: object) -> Edit:
    def change(program: Any) -> None:
        for size in sizes(program):
            size["as_expr"]["hint"] = {"as_int": value}

    return change


def guard(text: str) -> Edit:
    return lambda program: program.update(guards_code=[text])


def target(text: str) -> Edit:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = text

    return change


def constant_input(program: Any) -> None:
    """Add an input that is a text, which PyTorch quotes in the source of a guard."""
    text = f"' or {touch('MARK')} or '"
    module = program["graph_module"]
    module["graph"]["inputs"].append({"as_string": text})
    added = {"constant_input": {"name": "mode", "value": {"as_string": text}}}
    module["signature"]["input_specs"].append(added)


def many_unbacked_sizes(program: Any) -> None:
    program["range_constraints"]["u99999999999"] = {"min_val": 0, "max_val": None}


EDITS: dict[str, Edit] = {
    "an enum in a tuple": in_tree("builtins.tuple", json.dumps(ENUM)),
    "an enum in a list of torch.fx": in_tree(
        "torch.fx.immutable_collections.immutable_list", json.dumps(ENUM)
    ),
    "an enum as a key": in_tree("collections.OrderedDict", json.dumps([ENUM])),
    "an enum of a library's class": in_tree("library.Output", json.dumps([ENUM])),
    "the environment as a key": in_tree(
        "builtins.dict", json.dumps([{**ENUM, "fqn": "os:environ", "name": "HOME"}])
    ),
    "a shared library": in_tree(
        "builtins.tuple", json.dumps({**ENUM, "fqn": "ctypes:cdll", "name": "./lib.so"})
    ),
    "an enum in the signature of a submodule": in_submodule,
    "a factory": in_tree(
        "collections.defaultdict",
        {"default_factory_module": MODULE, "default_factory_name": "x", "dict_context": ["a"]},
    ),
    "a keyword that is source": keyword,
    "an argument that is source": argument_name,
    "a constant that is source": constant_input,
    "an expression in a dict": expression({"a": touch("MARK")}),
    "an expression in a list": expression([touch("MARK")]),
    "a hint that is evaluated": hint(touch("MARK")),
    "a hint in a dict": hint({"a": touch("MARK")}),
    "a tower of powers": expression(TOWER),
    "a tower of carets": expression("9^9^9^9"),
    "a tower of powers in a guard": guard("9**9**9**9 > L['input'].size()[0]"),
    "a shift in a guard": guard("1 << 99999999999 > L['input'].size()[0]"),
    "a repeated text in a guard": guard("'a' * 99999999999 == L['input']"),
    "a function of torch that computes nothing": target("torch.sym_fresh_size"),
    "an attribute of an op": target("torch.ops.aten.linear.__setattr__"),
    "a method of an op": target("torch.ops.aten.linear.overloads"),
    "a function by an op that is not checked": target("torch.ops.aten.set_.source_Tensor"),
    "billions of symbols": many_unbacked_sizes,
}
TEXTS: dict[str, Change] = {
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "a mark of the byte order": lambda data: b"\xef\xbb\xbf" + data,
    "the same key twice": lambda data: b'{"guards_code": [], ' + data.lstrip()[1:],
    "NaN": lambda data: b'{"x": NaN, ' + data.lstrip()[1:],
    "thousands of digits": lambda data: b'{"x": ' + b"9" * 3000 + b", " + data.lstrip()[1:],
    "a null character": lambda data: b'{"x": "\\u0000", ' + data.lstrip()[1:],
    "half a character": lambda data: b'{"x": "\\ud800", ' + data.lstrip()[1:],
    "deep nesting": lambda data: (
        b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b", " + data.lstrip()[1:]
    ),
}


@pytest.fixture(scope="module")
def plain() -> bytes:
    return exported()


def write(plain: bytes, folder: Path, change: Change) -> Path:
    """Write a hostile archive, whose marker is a file next to it, and the module that it names."""
    marker = folder / "marker"
    (folder / f"{MODULE}.py").write_text(f"open({str(marker)!r}, 'w')\nThing = {{'A': 1}}\n")
    path = folder / "model.pt2"
    path.write_bytes(rewritten(plain, {PROGRAM: change}))
    return path


def edited(edit: Edit, folder: Path) -> Change:
    """Return a change by this edit, with the path of the marker in place of MARK."""
    change = in_json(edit)
    assert callable(change)
    marker = str(folder / "marker").encode()
    return lambda data: change(data).replace(b"MARK", marker)


@pytest.mark.parametrize("name", EDITS)
def test_a_hostile_program_is_refused_without_a_lock(
    plain: bytes,
    tmp_path: Path,
    composecli: Composecli,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    path = write(plain, tmp_path, edited(EDITS[name], tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = composecli("inspect", path)
    assert ran.code == 3, ran.out
    assert "CC926" in ran.err + ran.out
    assert not (tmp_path / "marker").exists()
    assert MODULE not in sys.modules


@pytest.mark.parametrize("name", TEXTS)
def test_a_program_that_can_be_read_in_two_ways_is_damaged(
    plain: bytes, tmp_path: Path, composecli: Composecli, name: str
) -> None:
    ran = composecli("inspect", write(plain, tmp_path, TEXTS[name]))
    assert ran.code == 3, ran.out
    assert "CC904" in ran.err + ran.out


@pytest.mark.parametrize("isolation", ["best", "none"])
@pytest.mark.parametrize("name", ["an enum in a tuple", "a keyword that is source"])
def test_a_hostile_program_is_refused_by_the_installed_command(
    plain: bytes, tmp_path: Path, installed: Installed, name: str, isolation: str
) -> None:
    path = write(plain, tmp_path, edited(EDITS[name], tmp_path))
    ran = installed("inspect", path, "--isolation", isolation)
    assert ran.code == 3
    assert "CC926" in ran.err + ran.out
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("isolation", ["best", "none"])
def test_a_view_beyond_its_memory_fails_in_the_installed_command(
    tmp_path: Path, installed: Installed, isolation: str
) -> None:
    class Viewing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten._reshape_alias.default(x, [2, 2], [2, 1]) + 1

    data = io.BytesIO()
    torch.export.save(torch.export.export(Viewing(), (torch.ones(2, 2),)), data)

    def enlarge(program: Any) -> None:
        (view, *_) = program["graph_module"]["graph"]["nodes"]
        view["inputs"][1]["arg"] = {"as_ints": [400, 250]}
        view["inputs"][2]["arg"] = {"as_ints": [250, 1]}

    path = tmp_path / "model.pt2"
    path.write_bytes(rewritten(data.getvalue(), {PROGRAM: in_json(enlarge)}))
    ran = installed("inspect", path, "--isolation", isolation, "--input", "2,2")
    assert ran.code == 3
    assert "an op was called with a view beyond its tensors' memory" in ran.out + ran.err


def test_torch_itself_would_import_it(
    plain: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(plain, tmp_path, edited(EDITS["an enum in a tuple"], tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    with warnings.catch_warnings(action="ignore"), suppress(Exception):
        torch.export.load(path).module()
    assert (tmp_path / "marker").exists()
    sys.modules.pop(MODULE, None)


def test_the_reader_of_structures_imports_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check of the file, an enum is a dict to it, and a factory unsupported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{MODULE}.py").write_text("")
    inner = {"type": "builtins.dict", "context": json.dumps([ENUM]), "children_spec": [LEAF]}
    assert read_spec(json.dumps([1, inner])).context == [ENUM]
    for kind in ("collections.defaultdict", "library.Output", "collections.namedtuple"):
        with pytest.raises(Unsupported):
            read_spec(json.dumps([1, {**inner, "type": kind}]))
    assert MODULE not in sys.modules
