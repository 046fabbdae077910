"""Every known way in which a file can attack PyTorch, tried through the command line.

Nothing in the file may run, the refusal has the expected code, and nothing is left on the disk.
"""

from __future__ import annotations

import io
import json
import os
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from composecli.cli import main
from tests.safety.fixtures import (
    PLAIN,
    Change,
    Touch,
    called,
    exported,
    in_json,
    linear,
    pickled,
    rewritten,
    saved,
    scripted,
    shared_tuples,
    source_of_model,
    touching,
)

Make = Callable[[Path], bytes]
Run = Callable[..., Result]

FORWARD = """class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
    def forward(self, x: Tensor) -> Tensor:
        {}
        return self.fc(x)
"""
READ = "x = x + torch.from_file(MARK, False, 3)"
HUGE = "x = x + torch.zeros(1048576, 1048576).sum()"
STATE = """class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.size = 3
    @torch.jit.export
    def __getstate__(self):
        {get}
        return (self.size, self.training)
    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]):
        {set}
        self.size = state[0]
        self.training = state[1]
    def forward(self, x: Tensor) -> Tensor:
        return x + self.size
"""
UNUSED = """def helper(x: Tensor) -> Tensor:
    torch.save(x, MARK)
    return x
class Model(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x
    @torch.jit.export
    def unused(self, x: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(helper, x))
"""
HOOKED = """class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        def hook(self, inputs: tuple[Tensor]) -> None:
            torch.save(inputs[0], MARK)
        self.register_forward_pre_hook(hook)
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)
"""


def _shadowed(_: Path) -> bytes:
    module = nn.Linear(3, 2)
    module.__dict__["forward"] = nn.Identity()
    return saved(module)


def _shadowed_method(_: Path) -> bytes:
    module = nn.Transformer(4, 2, 1, 1, 4)
    module.__dict__["generate_square_subsequent_mask"] = nn.Identity()
    return saved(module)


def _set_state(_: Path) -> bytes:
    module = nn.Linear(3, 2)
    module.__dict__["__setstate__"] = nn.Identity()
    return saved(module)


def _constructed(_: Path) -> bytes:
    inner = b"\x80\x02ctorch.nn.modules.linear\nLinear\n(M0uM0utR}X\x08\x00\x00\x00_modules}sb."
    return rewritten(saved(nn.Linear(3, 2)), {"data.pkl": inner})


def _rebuilt(_: Path) -> bytes:
    inner = (
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ctorch.nn.modules.linear\nLinear\n"
        b"ctorch.nn.modules.linear\nLinear\n(K\x03K\x02t}tR."
    )
    return rewritten(saved(nn.Linear(3, 2)), {"data.pkl": inner})


def _with_shouted_pickle(data: bytes) -> bytes:
    """Add `DATA.PKL` next to `data.pkl`."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
            if member.filename.endswith("/data.pkl"):
                new.writestr(member.filename.replace("data.pkl", "DATA.PKL"), old.read(member))
    return result.getvalue()


def _with_shouted_code(data: bytes) -> bytes:
    """Rename `code/` to `CODE/`.

    PyTorch finds it; a scanner that looks for `code/` takes the file for a checkpoint.
    """
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename.replace("/code/", "/CODE/"), old.read(member))
    return result.getvalue()


def _with_member_twice(data: bytes) -> bytes:
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        with warnings.catch_warnings(action="ignore"):
            new.writestr(member.filename, old.read(member))
    return result.getvalue()


def _edit_source(change: Callable[[str], str]) -> Make:
    """Return a maker of the plain module with the source in its archive edited."""

    def make(marker: Path) -> bytes:
        def edit(data: bytes) -> bytes:
            return change(data.decode()).replace("MARK", str(marker)).encode()

        data = linear(marker.parent)
        return rewritten(data, {source_of_model(data): edit})

    return make


def _before_return(line: str) -> Make:
    """Return a maker of the plain module with one more line before the end of its forward."""
    last = "    return (fc).forward(x, )"
    return _edit_source(lambda text: text.replace(last, f"    {line}\n{last}"))


def _script_forward(line: str) -> Make:
    """Return a maker of a scripted module that runs this line in its forward."""
    return lambda marker: scripted(FORWARD.format(line), marker)


def _script_state(*, on_save: str = "pass", on_load: str = "pass") -> Make:
    """Return a maker of a scripted module that runs these lines when it is saved and loaded."""
    return lambda marker: scripted(STATE.format(get=on_save, set=on_load), marker)


def _flatbuffer(_: Path) -> bytes:
    return b"\x1c\x00\x00\x00PTMF" + b"\x00" * 64


def _zip_bomb(_: Path) -> bytes:
    return rewritten(saved({"a": torch.zeros(2_000_000)}), {}, compress=True)


def _module_with(touch: Touch) -> nn.Module:
    module = nn.Linear(3, 2)
    module.extra = touch
    return module


def _sample_inputs(marker: Path) -> bytes:
    return rewritten(exported(), {"data/sample_inputs/model.pt": touching(marker)})


def _pickled_weight(marker: Path) -> bytes:
    config = in_json(lambda config: config["config"]["weight"].update(use_pickle=True))
    return rewritten(
        exported(), {"model_weights_config.json": config, "data/weights/weight_0": touching(marker)}
    )


def _custom_object(marker: Path) -> bytes:
    def add(config: dict[str, dict[str, object]]) -> None:
        config["config"]["thing"] = {
            "path_name": "custom_obj_0",
            "is_param": False,
            "use_pickle": False,
            "tensor_meta": None,
        }

    changes: dict[str, Change] = {
        "model_constants_config.json": in_json(add),
        "data/constants/custom_obj_0": touching(marker),
    }
    return rewritten(exported(), changes)


def _change_program(change: Callable[[Any, Path], None]) -> Make:
    """Return a maker of an export; the change gets the JSON of its program, and the marker."""

    def make(marker: Path) -> bytes:
        edit = in_json(lambda program: change(program, marker))
        return rewritten(exported(), {"models/model.json": edit})

    return make


def _expression(program: Any, marker: Path) -> None:
    for value in program["graph_module"]["graph"]["tensor_values"].values():
        for size in value["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = f"__import__('pathlib').Path('{marker}').touch() or 3"
                return
    raise AssertionError("no size of the program is an expression")


def _guard(program: Any, marker: Path) -> None:
    program["guards_code"] = [f"__import__('pathlib').Path('{marker}').touch() or True"]


def _set_target(target: str) -> Make:
    """Return a maker of an export whose first node calls this target."""

    def change(program: Any, _: Path) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = target

    return _change_program(change)


def _name(program: Any, marker: Path) -> None:
    graph = program["graph_module"]["graph"]
    name = f"x=__import__('pathlib').Path('{marker}').touch()"
    old = graph["inputs"][-1]["as_tensor"]["name"]
    graph["inputs"][-1]["as_tensor"]["name"] = name
    graph["tensor_values"][name] = graph["tensor_values"].pop(old)


def _enum(program: Any, _: Path) -> None:
    """Add an enum to the keys of a dict: PyTorch imports the module that it claims to be in."""
    context = json.dumps([{"__enum__": True, "fqn": "antigravity:Thing", "name": "A"}])
    _set_structure(program, "builtins.dict", context)


def _default_factory(program: Any, _: Path) -> None:
    """Add a defaultdict: PyTorch imports the module of its default factory."""
    context = {
        "default_factory_module": "antigravity",
        "default_factory_name": "x",
        "dict_context": [],
    }
    _set_structure(program, "collections.defaultdict", context)


def _set_structure(program: Any, type_name: str, context: object) -> None:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    inner = {"type": type_name, "context": context, "children_spec": []}
    outer = {"type": "builtins.tuple", "context": "null", "children_spec": [inner]}
    signature["out_spec"] = json.dumps([1, outer])


def _old(value: object) -> bytes:
    """Return what `torch.save` wrote before PyTorch 1.6."""
    return saved(value, _use_new_zipfile_serialization=False)


def _huge_bytearray(_: Path) -> bytes:
    return called(b"builtins\nbytearray", 10**9)


def _upper_case_code(marker: Path) -> bytes:
    return _with_shouted_code(scripted(FORWARD.format(WRITE), marker))


def _change_record(change: Change) -> Make:
    """Return a maker of the plain module with its first record of weights changed."""
    return lambda marker: rewritten(linear(marker.parent), {"/data/0": change})


def _short_checkpoint_record(_: Path) -> bytes:
    return rewritten(saved(nn.Linear(3, 2)), {"/data/0": b"1234"})


def _change_export(changes: dict[str, Change]) -> Make:
    """Return a maker of an export with some members changed."""
    return lambda _: rewritten(exported(), changes)


class Threat(NamedTuple):
    """A hostile file; `row` is its number in the list of threats, `codes` the allowed answers."""

    row: int
    name: str
    make: Make
    codes: tuple[str, ...]


PICKLE = ("CC908", "CC909")
# A file with weights, of which only the tensors would be loaded.
CODELESS = ("CC907",)
SOURCE = ("CC926", "CC913")
DEEP_SOURCE = ("CC916", "CC913", "CC926")
WRITE = "torch.save(x, MARK)"
WRITE_ONES = "torch.save(torch.ones(1), MARK)"
THREATS = [
    Threat(1, "code in a pickle", lambda m: saved({"a": Touch(m)}), PICKLE),
    Threat(1, "code in a module's pickle", lambda m: saved(_module_with(Touch(m))), ("CC909",)),
    Threat(
        1, "code beside weights", lambda m: saved({"w": torch.ones(2), "a": Touch(m)}), CODELESS
    ),
    Threat(2, "code in the old format", lambda m: _old(_module_with(Touch(m))), ("CC909",)),
    Threat(2, "a pickle of code in the old format", lambda m: _old([Touch(m)]), PICKLE),
    Threat(2, "a short file in the old format", lambda _: _old(nn.Linear(3, 2))[:-4], ("CC904",)),
    Threat(3, "a shadowed forward", _shadowed, ("CC910",)),
    Threat(3, "a shadowed method of the class", _shadowed_method, ("CC910",)),
    Threat(3, "a state that is called", _set_state, ("CC910",)),
    Threat(3, "a constructor that takes all memory", _constructed, ("CC909",)),
    Threat(3, "a rebuild that runs a forward", _rebuilt, PICKLE),
    Threat(4, "a huge bytearray among tensors", _huge_bytearray, (*PICKLE, "CC907")),
    Threat(5, "a write in forward", _script_forward(WRITE), ("CC926",)),
    Threat(5, "a read in forward", _script_forward(READ), ("CC926",)),
    Threat(6, "a write on load", _script_state(on_load=WRITE_ONES), ("CC926",)),
    Threat(7, "a write on save", _script_state(on_save=WRITE_ONES), ("CC926",)),
    Threat(8, "a write in a fork that is never called", lambda m: scripted(UNUSED, m), ("CC926",)),
    Threat(8, "a write in a hook", lambda m: scripted(HOOKED, m), ("CC926",)),
    Threat(8, "another name of the op", _before_return('_0 = ops.aten.save(x, "MARK")'), SOURCE),
    Threat(
        8, "an escaped name", _before_return('_0 = getattr(torch, "\\163ave")(x, "MARK")'), SOURCE
    ),
    Threat(8, "an aliased module", _before_return('t = torch\n    _0 = t.save(x, "MARK")'), SOURCE),
    Threat(8, "a longer path", _before_return('_0 = torch.autograd.save(x, "MARK")'), SOURCE),
    Threat(
        9, "names that differ in case", lambda m: _with_shouted_pickle(linear(m.parent)), ("CC904",)
    ),
    Threat(9, "a code folder in upper case", _upper_case_code, ("CC904",)),
    Threat(10, "a short record", _change_record(lambda old: old[:4]), ("CC927",)),
    Threat(10, "a long record", _change_record(lambda old: old * 2), ("CC927",)),
    Threat(11, "a short record in a checkpoint", _short_checkpoint_record, ("CC927",)),
    Threat(
        11, "a short record in an export", _change_export({"weights/weight_0": b"1234"}), ("CC927",)
    ),
    Threat(13, "a zip bomb", _zip_bomb, ("CC904",)),
    Threat(14, "a duplicate member", lambda m: _with_member_twice(linear(m.parent)), ("CC904",)),
    Threat(14, "bytes after the archive", lambda m: linear(m.parent) + b"PK\x05\x06", ("CC904",)),
    Threat(14, "bytes before the archive", lambda m: b"PK\x03\x04" + linear(m.parent), ("CC904",)),
    Threat(15, "a flatbuffer", _flatbuffer, ("CC908",)),
    Threat(16, "a sum of many terms", _before_return(f"_0 = {'1+' * 20000}1"), DEEP_SOURCE),
    Threat(
        16, "many nested brackets", _before_return(f"_0 = {'(' * 20000}1{')' * 20000}"), DEEP_SOURCE
    ),
    Threat(18, "a huge allocation", _script_forward(HUGE), ("CC304",)),
    Threat(19, "tuples that contain each other", lambda _: shared_tuples(60), ("CC904",)),
    Threat(21, "a text file", lambda _: b"hello world", ("CC908",)),
    Threat(21, "an empty file", lambda _: b"", ("CC903",)),
    Threat(21, "a bare pickle", lambda m: pickled(Touch(m)), ("CC908",)),
    Threat(22, "sample inputs that run", _sample_inputs, ("CC926",)),
    Threat(23, "a weight in a pickle", _pickled_weight, ("CC926",)),
    Threat(23, "a custom object", _custom_object, ("CC926",)),
    Threat(24, "an expression that is evaluated", _change_program(_expression), ("CC926",)),
    Threat(24, "a guard that is evaluated", _change_program(_guard), ("CC926",)),
    Threat(25, "a target in torch", _set_target("torch.hub.load"), ("CC926",)),
    Threat(
        25, "a target that reads files", _set_target("torch.ops.aten.from_file.default"), ("CC926",)
    ),
    Threat(25, "a name that is source code", _change_program(_name), ("CC926",)),
    Threat(25, "an enum that is imported", _change_program(_enum), ("CC926",)),
    Threat(25, "a factory that is imported", _change_program(_default_factory), ("CC926",)),
    Threat(
        26,
        "a compiled library",
        _change_export({"data/aotinductor/model/x.so": b"ELF"}),
        ("CC926",),
    ),
]
EXPORTED_ROWS = (22, 23, 24, 25, 26)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in the test's folder, without its signal handlers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return lambda *arguments: CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def test_an_op_named_in_a_guard_is_not_offered_as_allowable(tmp_path: Path, run: Run) -> None:
    """The guard contains the name of an op that the user allows; the guard is still refused."""
    guard = in_json(lambda program: program.update(guards_code=["exec('') or aten::one"]))
    (tmp_path / "model.pt2").write_bytes(rewritten(exported(), {"models/model.json": guard}))
    result = run("inspect", "model.pt2", "--allow-op", "aten::one")
    assert result.exit_code == 3
    assert "it evaluates the guard" in result.output
    assert "or --allow-op" not in result.output


def test_a_wrong_checksum_of_code_is_damage(tmp_path: Path, run: Run) -> None:
    data = linear(tmp_path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        checksum = archive.getinfo(source_of_model(data)).CRC
    # The checksum is in the member's local header and in the archive's directory.
    wrong = (checksum ^ 1).to_bytes(4, "little")
    (tmp_path / "model.pt").write_bytes(data.replace(checksum.to_bytes(4, "little"), wrong))
    result = run("inspect", "model.pt")
    assert result.exit_code == 3
    assert "CC904" in result.output


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: f"{threat.row}-{threat.name}")
def test_a_hostile_file_is_refused_and_nothing_in_it_runs(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, threat: Threat
) -> None:
    marker = tmp_path / "marker"
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "model.pt"
    if threat.row in EXPORTED_ROWS:
        path = folder / "model.pt2"
    path.write_bytes(threat.make(marker))
    content = path.read_bytes()
    marker.unlink(missing_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    result = run("inspect", path.name, "--max-memory", "8G")
    assert not marker.exists(), threat.name
    assert result.exit_code == 3
    assert any(f"[{code}]" in result.output for code in threat.codes), result.output
    assert os.listdir(folder) == [path.name]
    assert path.read_bytes() == content


def test_a_forward_that_hangs_is_ended_by_the_timeout(tmp_path: Path, run: Run) -> None:
    hang = FORWARD.format("i = 0\n        while i >= 0:\n            i = (i + 1) % 1000")
    (tmp_path / "model.pt").write_bytes(scripted(hang, tmp_path / "marker"))
    result = run("inspect", "model.pt", "--input", "2,3", "--timeout", "4")
    assert result.exit_code == 3
    assert "longer than 4 s" in result.output or "SIGXCPU" in result.output


def test_a_flipped_bit_in_the_weights_stops_a_join_but_not_a_check(
    tmp_path: Path, run: Run
) -> None:
    data = linear(tmp_path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        weight = next(name for name in archive.namelist() if name.endswith("/data/0"))
        offset = data.index(archive.read(weight))
    flipped = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
    (tmp_path / "model.pt").write_bytes(flipped)
    (tmp_path / "next.pt").write_bytes(square(tmp_path))
    joined = run("join", "model.pt", "next.pt", "-o", "both.pt")
    assert joined.exit_code == 3
    assert "data/0 does not match its checksum" in joined.output
    assert sorted(os.listdir(tmp_path)) == ["model.pt", "next.pt"]
    assert run("check", "model.pt", "next.pt").exit_code == 0


@pytest.mark.parametrize("options", [(), ("--format", "json")])
def test_control_characters_of_a_file_do_not_reach_the_terminal(
    tmp_path: Path, run: Run, options: tuple[str, ...]
) -> None:
    hostile = "[/red]\x1b[2J\n::error::\u202ex" + "y" * 5000
    torch.save({hostile: torch.ones(2), "weight": torch.ones(2, 3)}, tmp_path / "weights.pt")
    factory = "from torch import nn\n\n\ndef make():\n    return nn.Linear(3, 2)\n"
    (tmp_path / "factory.py").write_text(factory)
    result = run("inspect", "factory.py:make@weights.pt", *options)
    assert result.exit_code == 3
    assert "[/red]" in result.output
    assert not {"\x1b", "\u202e"} & set(result.output)
    assert "\n::error::" not in result.output
    assert max(map(len, result.output.splitlines())) < 7000


def test_an_output_behind_a_symlink_keeps_the_link_and_the_mode(tmp_path: Path, run: Run) -> None:
    (tmp_path / "model.pt").write_bytes(linear(tmp_path))
    (tmp_path / "next.pt").write_bytes(square(tmp_path))
    (tmp_path / "real.pt").write_bytes(b"old")
    (tmp_path / "real.pt").chmod(0o640)
    (tmp_path / "both.pt").symlink_to("real.pt")
    joined = run("join", "model.pt", "next.pt", "-o", "both.pt", "--force")
    assert joined.exit_code == 0
    assert (tmp_path / "both.pt").is_symlink()
    assert stat.S_IMODE((tmp_path / "real.pt").stat().st_mode) == 0o640
    torch.jit.load(str(tmp_path / "real.pt"))


def square(folder: Path) -> bytes:
    """Return a scripted layer that fits after the plain one: `(N, 2) -> (N, 2)`."""
    return scripted(PLAIN.replace("(3, 2)", "(2, 2)"), folder / "marker")
