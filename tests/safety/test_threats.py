"""Every way in which a file is known to harm PyTorch, tried on the command line: nothing of it runs, the refusal has
its code, and nothing is left on the disk."""

from __future__ import annotations

import io
import json
import os
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
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
        def hook(self, given: tuple[Tensor]) -> None:
            torch.save(given[0], MARK)
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


def _renamed(data: bytes) -> bytes:
    """`DATA.PKL` beside `data.pkl`."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
            if member.filename.endswith("/data.pkl"):
                new.writestr(member.filename.replace("data.pkl", "DATA.PKL"), old.read(member))
    return result.getvalue()


def _shouted(data: bytes) -> bytes:
    """`CODE/` in the place of `code/`: PyTorch finds it, and who looks for `code/` takes the file for a checkpoint."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename.replace("/code/", "/CODE/"), old.read(member))
    return result.getvalue()


def _twice(data: bytes) -> bytes:
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        with warnings.catch_warnings(action="ignore"):
            new.writestr(member.filename, old.read(member))
    return result.getvalue()


def _source(change: Callable[[str], str]) -> Callable[[Path], bytes]:
    """The plain module, with the source in its archive edited."""

    def make(marker: Path) -> bytes:
        def edited(data: bytes) -> bytes:
            return change(data.decode()).replace("MARK", str(marker)).encode()

        data = linear(marker.parent)
        return rewritten(data, {source_of_model(data): edited})

    return make


def _before_return(line: str) -> Callable[[Path], bytes]:
    return _source(
        lambda text: text.replace(
            "    return (fc).forward(x, )", f"    {line}\n    return (fc).forward(x, )"
        )
    )


def _flatbuffer(_: Path) -> bytes:
    return b"\x1c\x00\x00\x00PTMF" + b"\x00" * 64


def _bomb(_: Path) -> bytes:
    return rewritten(saved({"a": torch.zeros(2_000_000)}), {}, compress=True)


def _sample(marker: Path) -> bytes:
    return rewritten(exported(), {"data/sample_inputs/model.pt": touching(marker)})


def _pickled_weight(marker: Path) -> bytes:
    config = in_json(lambda found: found["config"]["weight"].update(use_pickle=True))
    return rewritten(
        exported(), {"model_weights_config.json": config, "data/weights/weight_0": touching(marker)}
    )


def _custom_object(marker: Path) -> bytes:
    def add(found: dict[str, dict[str, object]]) -> None:
        found["config"]["thing"] = {
            "path_name": "custom_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None,
        }  # fmt: skip

    changes: dict[str, Change] = {
        "model_constants_config.json": in_json(add),
        "data/constants/custom_obj_0": touching(marker),
    }
    return rewritten(exported(), changes)


def _model(change: Callable[..., None]) -> Callable[[Path], bytes]:
    """An export whose program is changed; the change gets the program and the marker."""
    return lambda marker: rewritten(
        exported(), {"models/model.json": in_json(lambda found: change(found, marker))}
    )


def _expression(found: dict[str, dict], marker: Path) -> None:  # type: ignore[type-arg]
    values = found["graph_module"]["graph"]["tensor_values"].values()
    size = next(size for value in values for size in value["sizes"] if "as_expr" in size)
    size["as_expr"]["expr_str"] = f"__import__('pathlib').Path('{marker}').touch() or 3"


def _guard(found: dict[str, list[str]], marker: Path) -> None:
    found["guards_code"] = [f"__import__('pathlib').Path('{marker}').touch() or True"]


def _target(found: dict[str, dict], _: Path) -> None:  # type: ignore[type-arg]
    found["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"


def _file_target(found: dict[str, dict], _: Path) -> None:  # type: ignore[type-arg]
    found["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"


def _name(found: dict[str, dict], marker: Path) -> None:  # type: ignore[type-arg]
    graph = found["graph_module"]["graph"]
    name = f"x=__import__('pathlib').Path('{marker}').touch()"
    old = graph["inputs"][-1]["as_tensor"]["name"]
    graph["inputs"][-1]["as_tensor"]["name"] = name
    graph["tensor_values"][name] = graph["tensor_values"].pop(old)


def _enum(found: dict[str, dict], _: Path) -> None:  # type: ignore[type-arg]
    """PyTorch imports the module that an enum among the keys of a dict is said to be of."""
    context = json.dumps([{"__enum__": True, "fqn": "antigravity:Thing", "name": "A"}])
    inner = {"type": "builtins.dict", "context": context, "children_spec": []}
    _set_structure(found, inner)


def _factory(found: dict[str, dict], _: Path) -> None:  # type: ignore[type-arg]
    context = {
        "default_factory_module": "antigravity",
        "default_factory_name": "x",
        "dict_context": [],
    }
    _set_structure(
        found, {"type": "collections.defaultdict", "context": context, "children_spec": []}
    )


def _set_structure(found: dict[str, dict], inner: object) -> None:  # type: ignore[type-arg]
    signature = found["graph_module"]["module_call_graph"][0]["signature"]
    signature["out_spec"] = json.dumps(
        [1, {"type": "builtins.tuple", "context": "null", "children_spec": [inner]}]
    )


Make = Callable[[Path], bytes]
# The row of the list of threats, what is done, the file, and the codes of which one is the answer.
ROWS: list[tuple[int, str, Make, tuple[str, ...]]] = [
    (1, "code in a pickle", lambda marker: saved({"a": Touch(marker)}), ("CC908", "CC909")),
    (1, "code in a module's pickle", lambda marker: saved(_with(Touch(marker))), ("CC909",)),
    (2, "the legacy format", lambda _: saved(nn.Linear(3, 2), _use_new_zipfile_serialization=False), ("CC911",)),
    (3, "a forward that is shadowed", _shadowed, ("CC910",)),
    (3, "a method of its own that is shadowed", _shadowed_method, ("CC910",)),
    (3, "a state that is called", _set_state, ("CC910",)),
    (3, "a constructor that takes all memory", _constructed, ("CC909",)),
    (3, "a rebuild that runs a forward", _rebuilt, ("CC908", "CC909")),
    (4, "memory in tensors only", lambda _: called(b"builtins\nbytearray", 10**9), ("CC908", "CC909", "CC907")),
    (5, "a write in forward", lambda m: scripted(FORWARD.format("torch.save(x, MARK)"), m), ("CC926",)),
    (5, "a read in forward", lambda m: scripted(FORWARD.format(READ), m), ("CC926",)),
    (6, "a write at load", lambda m: scripted(STATE.format(set="torch.save(torch.ones(1), MARK)", get="pass"), m),
     ("CC926",)),
    (7, "a write at save", lambda m: scripted(STATE.format(get="torch.save(torch.ones(1), MARK)", set="pass"), m),
     ("CC926",)),
    (8, "a write in a fork that nobody calls", lambda m: scripted(UNUSED, m), ("CC926",)),
    (8, "a write in a hook", lambda m: scripted(HOOKED, m), ("CC926",)),
    (8, "another name for it", _before_return('_0 = ops.aten.save(x, "MARK")'), ("CC926", "CC913")),
    (8, "an escaped name", _before_return('_0 = getattr(torch, "\\163ave")(x, "MARK")'), ("CC926", "CC913")),
    (8, "a module that is aliased", _before_return('t = torch\n    _0 = t.save(x, "MARK")'), ("CC926", "CC913")),
    (8, "a longer way to it", _before_return('_0 = torch.autograd.save(x, "MARK")'), ("CC926", "CC913")),
    (9, "names that differ in case", lambda m: _renamed(linear(m.parent)), ("CC904",)),
    (9, "code in other letters", lambda m: _shouted(scripted(FORWARD.format("torch.save(x, MARK)"), m)), ("CC904",)),
    (10, "a short record", lambda m: rewritten(linear(m.parent), {"/data/0": lambda old: old[:4]}), ("CC927",)),
    (10, "a long record", lambda m: rewritten(linear(m.parent), {"/data/0": lambda old: old * 2}), ("CC927",)),
    (11, "a short record in a checkpoint", lambda _: rewritten(saved(nn.Linear(3, 2)), {"/data/0": b"1234"}),
     ("CC927",)),
    (11, "a short record in an export", lambda _: rewritten(exported(), {"weights/weight_0": b"1234"}), ("CC927",)),
    (13, "a zip bomb", _bomb, ("CC904",)),
    (14, "a member twice", lambda m: _twice(linear(m.parent)), ("CC904",)),
    (14, "bytes behind", lambda m: linear(m.parent) + b"PK\x05\x06", ("CC904",)),
    (14, "bytes before", lambda m: b"PK\x03\x04" + linear(m.parent), ("CC904",)),
    (15, "a flatbuffer", _flatbuffer, ("CC908",)),
    (16, "a sum of many", _before_return(f"_0 = {'1+' * 20000}1"), ("CC916", "CC913", "CC926")),
    (16, "a nest of many", _before_return(f"_0 = {'(' * 20000}1{')' * 20000}"), ("CC916", "CC913", "CC926")),
    (18, "a huge allocation", lambda m: scripted(FORWARD.format(HUGE), m), ("CC304",)),
    (19, "tuples that hold each other", lambda _: shared_tuples(60), ("CC908", "CC907")),
    (21, "another file", lambda _: b"hello world", ("CC908",)),
    (21, "an empty file", lambda _: b"", ("CC903",)),
    (21, "a pickle", lambda marker: pickled(Touch(marker)), ("CC908",)),
    (22, "sample inputs that run", _sample, ("CC926",)),
    (23, "a weight in a pickle", _pickled_weight, ("CC926",)),
    (23, "a custom object", _custom_object, ("CC926",)),
    (24, "an expression that is evaluated", _model(_expression), ("CC926",)),
    (24, "a guard that is evaluated", _model(_guard), ("CC926",)),
    (25, "a target of torch", _model(_target), ("CC926",)),
    (25, "a target that reads files", _model(_file_target), ("CC926",)),
    (25, "a name that is source", _model(_name), ("CC926",)),
    (25, "an enum that is imported", _model(_enum), ("CC926",)),
    (25, "a factory that is imported", _model(_factory), ("CC926",)),
    (26, "a compiled library", lambda _: rewritten(exported(), {"data/aotinductor/model/x.so": b"ELF"}), ("CC926",)),
]  # fmt: skip


def _with(touch: Touch) -> nn.Module:
    module = nn.Linear(3, 2)
    module.extra = touch
    return module


def test_words_of_a_file_allow_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard in which the name of an op stands that the user allows."""
    mentioned = in_json(lambda found: found.update(guards_code=["exec('') or aten::one"]))
    (tmp_path / "model.pt2").write_bytes(rewritten(exported(), {"models/model.json": mentioned}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    words = ["inspect", "model.pt2", "--allow-op", "aten::one"]
    ran = CliRunner().invoke(main, words, catch_exceptions=False)
    assert ran.exit_code == 3
    assert "it evaluates the guard" in ran.output
    assert "or --allow-op" not in ran.output


def test_a_flipped_bit_in_code_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = linear(tmp_path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        crc = next(
            member.CRC for member in archive.infolist() if member.filename == source_of_model(data)
        )
    for place in [
        place for place in range(len(data)) if data.startswith(crc.to_bytes(4, "little"), place)
    ]:
        data = data[:place] + (crc ^ 1).to_bytes(4, "little") + data[place + 4 :]
    (tmp_path / "model.pt").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    ran = CliRunner().invoke(main, ["inspect", "model.pt"], catch_exceptions=False)
    assert ran.exit_code == 3
    assert "CC904" in ran.output


@pytest.mark.parametrize(
    ("row", "what", "make", "codes"), ROWS, ids=[f"{row}-{what}" for row, what, _, _ in ROWS]
)
def test_a_threat_is_refused_and_nothing_of_it_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row: int,
    what: str,
    make: Make,
    codes: tuple[str, ...],
) -> None:
    marker, folder = tmp_path / "marker", tmp_path / "folder"
    folder.mkdir()
    name = "model.pt2" if row in (22, 23, 24, 25, 26) else "model.pt"
    (folder / name).write_bytes(make(marker))
    before = (folder / name).read_bytes()
    marker.unlink(missing_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    ran = CliRunner().invoke(main, ["inspect", name, "--max-memory", "8G"], catch_exceptions=False)
    assert not marker.exists(), what
    assert ran.exit_code == 3
    assert any(f"[{code}]" in ran.output for code in codes), ran.output
    assert os.listdir(folder) == [name]
    assert (folder / name).read_bytes() == before


HANG = FORWARD.format("i = 0\n        while i >= 0:\n            i = (i + 1) % 1000")


def test_a_hang_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.pt").write_bytes(scripted(HANG, tmp_path / "marker"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    ran = CliRunner().invoke(
        main, ["inspect", "model.pt", "--input", "2,3", "--timeout", "4"], catch_exceptions=False
    )
    assert ran.exit_code == 3
    assert "longer than 4 s" in ran.output or "SIGXCPU" in ran.output


def test_a_flipped_bit_stops_a_join_and_not_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = linear(tmp_path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        weight = next(name for name in archive.namelist() if name.endswith("/data/0"))
        place = data.index(archive.read(weight))
    flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    (tmp_path / "model.pt").write_bytes(flipped)
    (tmp_path / "next.pt").write_bytes(
        scripted(PLAIN.replace("(3, 2)", "(2, 2)"), tmp_path / "marker")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    joined = CliRunner().invoke(
        main, ["join", "model.pt", "next.pt", "-o", "both.pt"], catch_exceptions=False
    )
    assert joined.exit_code == 3
    assert "data/0 does not match its checksum" in joined.output
    assert sorted(os.listdir(tmp_path)) == ["model.pt", "next.pt"]
    assert (
        CliRunner().invoke(main, ["check", "model.pt", "next.pt"], catch_exceptions=False).exit_code
        == 0
    )


def test_names_in_a_file_reach_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "[/red]\x1b[2J\n::error::\u202ex" + "y" * 5000
    torch.save({hostile: torch.ones(2), "weight": torch.ones(2, 3)}, tmp_path / "weights.pt")
    (tmp_path / "factory.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Linear(3, 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for words in ((), ("--format", "json")):
        ran = CliRunner().invoke(
            main, ["inspect", "factory.py:make@weights.pt", *words], catch_exceptions=False
        )
        assert ran.exit_code == 3
        assert "[/red]" in ran.output
        assert not {"\x1b", "\u202e"} & set(ran.output)
        assert "\n::error::" not in ran.output
    assert max(map(len, ran.output.splitlines())) < 7000


def test_an_output_behind_a_link_keeps_the_link_and_the_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.pt").write_bytes(linear(tmp_path))
    (tmp_path / "next.pt").write_bytes(
        scripted(PLAIN.replace("(3, 2)", "(2, 2)"), tmp_path / "marker")
    )
    (tmp_path / "real.pt").write_bytes(b"old")
    (tmp_path / "real.pt").chmod(0o640)
    (tmp_path / "both.pt").symlink_to("real.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    words = ["join", "model.pt", "next.pt", "-o", "both.pt", "--force"]
    assert CliRunner().invoke(main, words, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "both.pt").is_symlink()
    assert stat.S_IMODE((tmp_path / "real.pt").stat().st_mode) == 0o640
    torch.jit.load(str(tmp_path / "real.pt"))
