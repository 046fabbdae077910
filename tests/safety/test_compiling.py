"""TorchScript that would run or misuse memory while it is compiled and unpickled.

The refusal comes from the text and the opcodes, before torch sees the file.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from composecli.cli import main
from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import ModelKind
from composecli.runtime.loading import load
from tests.safety.fixtures import (
    MODEL_OBJECT,
    MODULE,
    linear,
    script_archive,
    script_object,
    text,
)
from tests.safety.test_defence_in_depth import request

Run = Callable[..., Result]
SAVE = 'torch.save(torch.ones([1]), "MARK")'
READ = 'torch.from_file("/etc/passwd", False, 3)'


def _forward(line: str) -> str:
    """Return the module with one more line in its forward."""
    return MODULE.replace("    return", f"    {line}\n    return")


def _attribute(line: str) -> str:
    """Return the module with one more line in its class."""
    return MODULE.replace("  def", f"  {line}\n  def", 1)


def _argument(line: str) -> str:
    """Return the module with one more argument of its forward."""
    return MODULE.replace("x: Tensor)", f"x: Tensor,\n    {line})")


CLASS = "class Other{}:\n  {}\n"
USE = "_0 = uninitialized(__torch__.Other)"
SOURCES = {
    "a default value": _argument(f"y: int=annotate(int, {SAVE})"),
    "a default value that reads": _argument(f"y: Tensor={READ}"),
    "a default value of ops": _argument('y: Tensor=ops.aten.from_file("/etc/passwd", False, 3)'),
    "a default value in a list": _argument(f"y: List[Tensor]=[{READ}]"),
    "a default value of a subscript": _argument(f"y: Tensor={READ}[0]"),
    "a default value of a method": _argument("y: int=(3).__add__(1)"),
    "a default value of getattr": _argument('y: Tensor=getattr(torch, "from_file")("/etc/passwd")'),
    "a default value of a comprehension": _argument("y: List[int]=[i for i in [1]]"),
    "a default value by its own function": (
        f"{_argument('y: int=__torch__.run()')}def run() -> int:\n  {SAVE}\n  return 1\n"
    ),
    "a default value by its own class": (
        f"{_argument('y: int=__torch__.Other(1)')}"
        + CLASS.format("", f"def __init__(self, x: int) -> NoneType:\n    {SAVE}\n    return None")
    ),
    "a default value of an unused method": (
        MODULE + f"  def unused(self,\n    y: int={SAVE}) -> int:\n    return y\n"
    ),
    "a default value of an inner function": _forward(
        f"def inner(y: Tensor={READ}):\n      return y\n    _0 = fork(inner)"
    ),
    "a default value of an inner function behind a number": _forward(
        f"1def inner(y: Tensor={READ}):\n      return y"
    ),
    "a default value of an interface": _forward(USE)
    + CLASS.format("(Interface)", f"def run(self, y: Tensor={READ}) -> Tensor:\n    pass"),
    "a class constant": _attribute(f"size : Final[Tensor] = {READ}"),
    "a class constant that saves": _attribute(f"size : Final[NoneType] = {SAVE}"),
    "the type of a named tuple's field": _forward(USE)
    + CLASS.format("(NamedTuple)", f"x : {READ} = Tensor"),
    "the default of a named tuple's field": _forward(USE)
    + CLASS.format("(NamedTuple)", f"x : Tensor = {READ}"),
    "a member of an enum": _forward(USE) + CLASS.format("(Enum)", f"A = {SAVE}"),
    "another kind of class": _forward(USE) + CLASS.format("(Object)", "x : int"),
    "a statement in a class": _attribute(SAVE),
    "a comment": f"# type: (int)\n{MODULE}",
    "a comment that hides a line from others": MODULE.replace("  def", f"  # \r  {SAVE}\n  def", 1),
    "a continued line": _argument(f"y: int=3 \\\n      + {SAVE}"),
    "a text in three quotes": _forward(f'_0 = """\n  def f(y: int={SAVE}): pass"""'),
    "a text in single quotes": _argument("y: str='a'"),
    "a tab": MODULE.replace("    return", "\treturn"),
    "a form feed": MODULE.replace("  def", "\f  def", 1),
    "a zero byte": MODULE.replace("Model", "Mod\0el", 1),
    "a letter that is not ASCII": MODULE.replace("x: Tensor", "х: Tensor"),
    "a line that ends inside brackets": _forward("_0 = [1,\n    2]"),
    "a hexadecimal number": _argument("y: int=0x10"),
    "two classes of one name": MODULE + MODULE,
    "two methods of one name": MODULE + MODULE[MODULE.index("  def") :],
    "brackets 20,000 deep": _forward(f"_0 = {'(' * 20_000}1{')' * 20_000}"),
    "lists 20,000 deep": _argument(f"y: int={'[' * 20_000}1{']' * 20_000}"),
    "a type 20,000 deep": _attribute(f"y : {'List[' * 20_000}int{']' * 20_000}"),
    "a sum of 20,000 terms": _forward(f"_0 = {'1+' * 20_000}1"),
    "20,000 minus signs": _forward(f"_0 = {'- ' * 20_000}1"),
    "20,000 attributes of attributes": _forward(f"_0 = x{'.a' * 20_000}"),
    "20,000 calls of calls": _forward(f"_0 = x{'()' * 20_000}"),
    "5,000 blocks": _forward(
        "".join(f"{' ' * (2 * depth)}if True:\n    " for depth in range(5_000))
        + " " * 10_000
        + "pass"
    ),
    "5,000 functions that call each other": _forward("_0 = __torch__.f0(x)")
    + "".join(
        f"def f{number}(x: Tensor) -> Tensor:\n  return __torch__.f{number + 1}(x)\n"
        for number in range(5_000)
    ),
    "5,000 classes inside each other": _forward(USE)
    + CLASS.format("", "a : __torch__.C0")
    + "".join(f"class C{number}:\n  a : __torch__.C{number + 1}\n" for number in range(5_000)),
}
WIDE = CLASS.format("", "\n  ".join(f"a{number} : int" for number in range(200)))
# The interpreter would read memory behind an object or a tuple that has fewer items.
CASTS = {
    "a class": _forward("_0 = unchecked_cast(__torch__.Other, self)\n    print(_0.a100)") + WIDE,
    "a class in a list": _forward(
        "_0 = unchecked_cast(List[__torch__.Other], [self])\n    print(_0[0].a100)"
    )
    + WIDE,
    "a class, behind the check of another": _forward(
        "_0 = annotate(Any, self)\n    if isinstance(_0, int):\n      pass\n    else:\n"
        "      print(unchecked_cast(__torch__.Other, _0).a100)"
    )
    + WIDE,
    "a tuple": _forward(
        "_0 = unchecked_cast(Tuple[int, int, int], (1, 2))\n    _1, _2, _3 = _0\n    print(_3)"
    ),
    "one alternative of two": _forward(
        "_0 = annotate(Union[__torch__.Model, __torch__.Other], self)\n"
        "    print(unchecked_cast(__torch__.Other, _0).a100)"
    )
    + WIDE,
}
LIST = b"ctorch.jit._pickle\nbuild_intlist\n"
STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x01tQ"
TENSOR = b"K\x00K\x64\x85K\x01\x85\x89ccollections\nOrderedDict\n)Rt"
WITH_TENSOR = _attribute("weight : Tensor")
WITH_OTHER = _attribute("other : __torch__.Other") + CLASS.format("", "a : int")
RECORD = {"data/0": b"\0\0\0\0"}
# For each a source, the opcodes of the attribute that it adds, and further members.
VALUES: dict[str, tuple[str, dict[str, bytes]]] = {
    "a function that is a number": (
        _attribute("sizes : List[int]\n  weight : Tensor"),
        {"sizes": LIST + b"]\x85R", "weight": b"K\x01(" + STORAGE + TENSOR + b"R"},
    ),
    "a function of the memo": (
        WITH_TENSOR,
        {"weight": b"ctorch._utils\n_rebuild_tensor_v2\nq\x000h\x00(" + STORAGE + TENSOR + b"R"},
    ),
    "a function with an escape in its name": (
        WITH_TENSOR,
        {"weight": b"ctorch._utils\n_rebuild_tensor\\x5fv2\n(" + STORAGE + TENSOR + b"R"},
    ),
    "a storage that is called": (WITH_TENSOR, {"weight": b"ctorch\nFloatStorage\n)R"}),
    "a storage of no dtype": (WITH_TENSOR, {"weight": b"ctorch\nEvilStorage\n"}),
    "a function that torch does not know": (
        WITH_TENSOR,
        {"weight": b"ctorch._utils\n_rebuild_evil\n)R"},
    ),
    "a list of another type": (
        _attribute("sizes : List[Tensor]"),
        {
            "sizes": b"ctorch.jit._pickle\nrestore_type_tag\n](K\x01e"
            + text("List[Tensor]")
            + b"\x86R"
        },
    ),
    "an object of another class": (
        WITH_OTHER + CLASS.replace("Other", "Third").format("", "b : int"),
        {"other": script_object("Third", {"b": b"K\x01"})},
    ),
    "an object without its attribute": (WITH_OTHER, {"other": script_object("Other", {})}),
    "a number in the place of an object": (WITH_OTHER, {"other": b"K\x01"}),
    "a tuple that is too short": (_attribute("pair : Tuple[int, int]"), {"pair": b"K\x01\x85"}),
    "a place far behind the memo": (
        _attribute("size : int"),
        {"size": b"K\x01r" + struct.pack("<I", 2**31)},
    ),
    "a class in the place of its object": (
        WITH_OTHER,
        {"other": b"c__torch__\nOther\n)\x81q\x00}" + text("a") + b"K\x01sb"},
    ),
    "a mark in the memo": (_attribute("size : int"), {"size": b"(q\x000K\x01"}),
    "tuples 100,000 deep": (_attribute("size : Any"), {"size": b")" + b"\x85" * 100_000}),
    "an attribute of no class": (MODULE, {"evil": b"K\x01"}),
    "a sparse tensor": (WITH_TENSOR, {"weight": b"ctorch._utils\n_rebuild_sparse_tensor\n)R"}),
}
OTHERS = {
    "a source in other letters": {"code/__torch__/COMPOSECLI_SCAN.PY": b"x"},
    "a source that ends in other letters": {"code/__torch__/a.PY": b"x"},
    "a source with a space in its name": {"code/__torch__/a b.py": b"x"},
    "example inputs that name a function": {
        "traced_inputs.pkl": b"\x80\x02ctorch.hub\nload\n)R.",
    },
}


@pytest.fixture(params=["locked", "none"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command line in the test's folder, with isolation and without."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    options = ("--isolation", "none") if request.param == "none" else ()
    runner = CliRunner()
    return lambda *words: runner.invoke(main, [*words, *options], catch_exceptions=False)


def _refused(run: Run, tmp_path: Path, data: bytes) -> str:
    """Return the output of a command that must refuse the file, and leave nothing behind."""
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    result = run("inspect", "model.pt")
    assert result.exit_code == 3, result.output
    assert os.listdir(tmp_path) == ["model.pt"]
    return result.output


@pytest.mark.parametrize("name", SOURCES)
def test_source_that_torch_would_evaluate_is_refused(tmp_path: Path, run: Run, name: str) -> None:
    marker = tmp_path / "marker"
    output = _refused(run, tmp_path, script_archive(SOURCES[name].replace("MARK", str(marker))))
    assert "CC926" in output
    assert "its code is not as PyTorch writes it" in output


@pytest.mark.parametrize("name", CASTS)
def test_a_cast_that_nothing_proves_is_refused(tmp_path: Path, run: Run, name: str) -> None:
    output = _refused(run, tmp_path, script_archive(CASTS[name]))
    assert "CC926" in output
    assert "a cast whose type nothing proves" in output


@pytest.mark.parametrize("name", VALUES)
def test_values_that_torch_would_misuse_are_refused(tmp_path: Path, run: Run, name: str) -> None:
    source, values = VALUES[name]
    value = script_object("Model", {"training": b"\x89", **values})
    output = _refused(run, tmp_path, script_archive(source, value, more=RECORD))
    assert "CC926" in output or "CC904" in output or "CC927" in output


@pytest.mark.parametrize("name", OTHERS)
def test_members_that_torch_finds_by_other_names_are_refused(
    tmp_path: Path, run: Run, name: str
) -> None:
    _refused(run, tmp_path, script_archive(MODULE, more=OTHERS[name]))


@pytest.mark.parametrize("name", ["a default value", "a class constant that saves"])
def test_the_worker_refuses_source_before_it_compiles(tmp_path: Path, name: str) -> None:
    """The scan of the worker runs in the process of the Python API, without any isolation."""
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    path.write_bytes(script_archive(SOURCES[name].replace("MARK", str(marker))))
    with pytest.raises(CouldNotAttempt) as caught:
        load(request(path, ModelKind.TORCHSCRIPT))
    assert caught.value.problem.code == "CC926"
    assert not marker.exists()


def test_a_map_to_the_source_that_is_more_than_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    name = "code/__torch__.py.debug_pkl"
    path.write_bytes(script_archive(MODULE, more={name: b"\x80\x02ctorch\nsave\n)R."}))
    with pytest.raises(CouldNotAttempt, match="needs trust"):
        load(request(path, ModelKind.TORCHSCRIPT))


def test_the_fixture_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(script_archive(MODULE, MODEL_OBJECT))
    load(request(path, ModelKind.TORCHSCRIPT))


@pytest.mark.parametrize("folder", ["other/", ""])
def test_an_archive_with_two_folders_is_refused(tmp_path: Path, run: Run, folder: str) -> None:
    data = io.BytesIO(linear(tmp_path.parent))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr(f"{folder}data.pkl", b"\x80\x02N.")
    assert "more than one folder" in _refused(run, tmp_path, data.getvalue())
