"""Python files as text: their classes, how these are called, and the ops that they register."""

from __future__ import annotations

from pathlib import Path

import pytest

from composecli.files.source_code import (
    Parameter,
    classes_in,
    files_that_define_ops,
    find_classes,
    folders_near,
    python_files,
)

SOURCE = """
import torch
from torch import nn
class Base(nn.Module):
    def __init__(self, width, *, act="relu"):
        self.width: int = width
        self.first, self.second = 1, 2
        self.register_buffer("table", None)
class Derived(Base):
    def build(self):
        self.late = 3
class Plain: pass
raise RuntimeError("it must not be run")
"""


@pytest.fixture
def file(here: Path) -> str:
    Path("nets.py").write_text(SOURCE)
    return "nets.py"


def test_classes_are_read_and_not_run(file: str) -> None:
    base, derived, plain = classes_in(file)
    assert base.parameters == (Parameter("width", None), Parameter("act", "'relu'"))
    assert base.attributes == {"width", "first", "second", "table"}
    assert derived.parameters == base.parameters
    assert derived.attributes == base.attributes | {"late"}
    assert (base.is_module, derived.is_module, plain.is_module) == (True, True, False)


@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({}, None),
        ({"width": "4"}, "(width=4)"),
        ({"width": "4", "act": "'relu'", "other": "1"}, "(width=4)"),
        ({"width": "4", "act": "'gelu'"}, "(width=4, act='gelu')"),
    ],
)
def test_a_call_takes_the_stored_arguments(
    file: str, settings: dict[str, str], call: str | None
) -> None:
    assert classes_in(file)[0].call(settings) == call
    assert classes_in(file)[2].call(settings) == ""


@pytest.mark.parametrize(
    "source",
    [b"def (:", b"\x00", b"\xff\xfe", b"(" * 100_000, b"x = " + b"-" * 50_000 + b"1", b""],
)
def test_a_file_that_is_not_python_has_no_classes(here: Path, source: bytes) -> None:
    Path("odd.py").write_bytes(source)
    assert classes_in("odd.py") == ()
    assert classes_in("missing.py") == ()


def test_files_near_a_model_are_those_of_its_folder_and_of_the_current_one(file: str) -> None:
    Path("models").mkdir()
    Path("models/net.py").touch()
    Path("models/again.py").symlink_to(Path("nets.py").resolve())
    folders = folders_near("models/a.pt")
    assert list(python_files(folders)) == ["nets.py", "models/net.py"]
    assert folders_near("a.pt") == folders_near(None) == ("",)
    assert list(python_files(("nowhere",))) == []


def test_a_class_is_found_by_its_name(file: str) -> None:
    assert [source.name for source in find_classes("Derived", ("",))] == ["Derived"]
    assert list(find_classes("Deriv", ("",))) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('@torch.library.custom_op("mine::double", mutates_args=())', True),
        ("Library('mine', 'DEF')", True),
        ('torch.library.define("mine::double", "(Tensor x) -> Tensor")', True),
        ("torch.ops.mine.double(x)", False),
        ('print("mine::double")', False),
        ('Library("mines", "DEF")', False),
    ],
)
def test_a_file_that_registers_ops_is_told_from_one_that_calls_them(
    here: Path, source: str, found: bool
) -> None:
    Path("ops.py").write_text(source)
    assert list(files_that_define_ops("mine", ("",))) == ["ops.py"] * found
