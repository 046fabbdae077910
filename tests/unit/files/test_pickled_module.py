"""Pickled modules as data: their classes and state dicts, as torch itself has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from composecli.core.pytree import TensorSpec
from composecli.files import pickled_module
from composecli.files.archive import Archive
from composecli.files.pickle import Constructed, Global, PickleDict
from composecli.files.pickle_tree import tree_of
from composecli.files.pickled_module import (
    PickledClass,
    Unreadable,
    is_module,
    pickled_class,
    state_nodes,
    training_flags,
)

HERE = "tests.unit.files.test_pickled_module"


class Own(nn.Module):
    """A module with all that a state dict has to tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.act, self.ratio, self.sizes = 6, "relu", 0.5, [1, 2]
        self.fc = nn.Linear(4, 6)
        self.tied = self.fc
        self.norm = nn.BatchNorm1d(6).eval()
        self.absent = None
        self.register_parameter("none", None)
        self.register_buffer("kept", torch.arange(6).view(2, 3).t())
        self.register_buffer("scratch", torch.zeros(3), persistent=False)
        self.brain = nn.Parameter(torch.ones(2, dtype=torch.bfloat16), requires_grad=False)


class Slotted(nn.Module):
    """A module with a slot, whose state is a pair."""

    __slots__ = ("extra",)

    def __init__(self) -> None:
        super().__init__()
        self.extra = 1
        self.add_module("fc", nn.Linear(2, 2))


def value_of(tmp_path: Path, module: object, **options: Any) -> object:
    path = tmp_path / "module.pt"
    torch.save(module, path, **options)
    with Archive(path) as archive:
        return archive.pickle("data.pkl").value


def node(**state: object) -> Constructed:
    """A module of a pickle that torch would not write."""
    items = {"_parameters": PickleDict(), "_buffers": PickleDict(), "_modules": PickleDict()}
    pairs: list[tuple[object, object]] = list({**items, **state}.items())
    return Constructed(Global("x", "X"), (), is_new=True, state=PickleDict(pairs))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "module", [Own(), nn.Sequential(Own(), Own()), nn.Identity(), Slotted(), nn.LSTM(2, 3)],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_the_state_dict_is_that_of_torch(tmp_path: Path, module: nn.Module, protocol: int) -> None:
    nodes = state_nodes(value_of(tmp_path, module, pickle_protocol=protocol))
    expected = module.state_dict()
    assert list(nodes) == list(expected)
    for name, tensor in expected.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        assert tree_of(nodes[name]) == TensorSpec(dtype, tuple(tensor.shape))


def test_the_class_and_the_plain_attributes_are_read(tmp_path: Path) -> None:
    own = value_of(tmp_path, nn.DataParallel(Own()))
    assert pickled_class(own) == PickledClass(
        HERE, "Own",
        (
            ("training", "True"), ("hidden", "6"), ("act", "'relu'"), ("ratio", "0.5"),
            ("sizes", "[1, 2]"), ("absent", "None"),
        ),
    )  # fmt: skip
    assert pickled_class({}) is None
    assert pickled_class(Constructed(Constructed(Global("a", "b"), ()), ())) is None
    older = Constructed(Global("copyreg", "_reconstructor"), (Global("net", "Net"), None))
    assert pickled_class(older) == PickledClass("net", "Net")


def test_modes_are_named_below_the_wrappers(tmp_path: Path) -> None:
    flags = training_flags(value_of(tmp_path, nn.DataParallel(Own())))
    assert flags == {"": True, "fc": True, "tied": True, "norm": False}


def test_other_objects_are_no_modules(tmp_path: Path) -> None:
    assert not is_module(value_of(tmp_path, {"weight": torch.ones(1)}))
    assert not is_module(value_of(tmp_path, torch.ones(1)))
    with pytest.raises(Unreadable, match="not stored as"):
        state_nodes(value_of(tmp_path, {"weight": torch.ones(1)}))


def test_a_tensor_with_attributes_of_its_own_is_read(tmp_path: Path) -> None:
    module = nn.Linear(2, 3)
    module.register_buffer("marked", torch.zeros(2, 5))
    module.marked.note = "kept"
    marked = state_nodes(value_of(tmp_path, module))["marked"]
    assert tree_of(marked) == TensorSpec("float32", (2, 5))


def test_modules_that_hold_each_other_end() -> None:
    ring = node()
    ring.state.items[2] = ("_modules", PickleDict([("again", ring)]))  # type: ignore[attr-defined]
    with pytest.raises(Unreadable, match="nested deeper"):
        state_nodes(ring)
    shared = node()
    for _ in range(40):
        shared = node(_modules=PickleDict([("a", shared), ("b", shared)]))
    with pytest.raises(Unreadable, match="nested deeper"):
        state_nodes(shared)


def test_too_many_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled_module, "MAX_TENSORS", 3)
    with pytest.raises(Unreadable, match="more than 3 tensors"):
        state_nodes(value_of(tmp_path, nn.BatchNorm1d(2)))


@pytest.mark.parametrize(
    "state",
    [
        {"_parameters": [1]},
        {"_buffers": PickleDict([(3, None)])},
        {"_buffers": PickleDict([(["list"], None)])},
        {"_modules": PickleDict([("a", "text")])},
        {"_modules": PickleDict([("x" * 2000, node())])},
    ],
)
def test_a_module_that_torch_would_not_write_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        state_nodes(node(**state))


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_settings_are_literals_that_python_reads_back(value: object) -> None:
    import ast

    found = pickled_class(node(setting=value))
    assert found is not None
    for name, text in found.settings:
        assert name == "setting"
        assert ast.literal_eval(text) == value
