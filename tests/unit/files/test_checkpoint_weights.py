"""Weights in a checkpoint: state dicts, and modules whose tensors are named as in a state dict."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.core.pytree import TensorSpec
from composecli.files.checkpoint_weights import StateDict, state_dicts
from composecli.files.members import open_members
from composecli.files.pickle import Constructed, Global, PickleDict
from composecli.files.pickle_tree import tree_of
from composecli.files.pickled_module import Unreadable
from composecli.files.weight_names import fit_names


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4).eval())


def held_in(tmp_path: Path, value: object, key: str | None = None) -> tuple[StateDict, ...]:
    path = tmp_path / "checkpoint.pt"
    torch.save(value, path)
    with open_members(path) as members:
        return state_dicts(members.pickle("data.pkl").value, key)


def not_a_module() -> Constructed:
    """A module of a pickle that torch would not write."""
    state = PickleDict([("_modules", PickleDict([("inner", "text")]))])
    return Constructed(Global("net", "Net"), (), is_new=True, state=state)


def test_a_module_is_a_state_dict_as_its_own_is(tmp_path: Path) -> None:
    module = network()
    value = {"weights": module.state_dict(), "model": module, "optimizer": {"model": module}}
    as_dict, as_module = held_in(tmp_path, value)
    assert [held.candidate.key for held in (as_dict, as_module)] == ["weights", "model"]
    assert as_dict.candidate.sizes == as_module.candidate.sizes
    assert as_dict.modes is None
    assert as_module.modes == {"": True, "0": True, "1": False}


def test_the_modes_follow_the_names(tmp_path: Path) -> None:
    (held,) = held_in(tmp_path, {"net": nn.ModuleDict({"model": nn.DataParallel(network())})})
    wanted = {name: tuple(value.shape) for name, value in network().state_dict().items()}
    fit = fit_names(held.candidate, wanted)
    assert fit.exact
    modes = held.modes_in(fit)
    assert modes is not None
    assert (modes["0"], modes["1"]) == (True, False)


def test_a_key_may_name_a_part_of_a_module(tmp_path: Path) -> None:
    (held,) = held_in(tmp_path, {"model": network()}, "model.1")
    assert tree_of(held.weights["weight"]) == TensorSpec("float32", (4,))
    assert held.modes == {"": False}


def test_tensors_that_are_not_plain_data_are_named_with_their_function(tmp_path: Path) -> None:
    module = network()
    module.register_buffer("mask", torch.eye(2).to_sparse())
    (held,) = held_in(tmp_path, module)
    assert "mask" not in held.weights
    assert held.foreign == {"mask": "torch._utils._rebuild_sparse_tensor"}


def test_an_unreadable_module_does_not_hide_another(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(network(), path)
    with open_members(path) as members:
        good = members.pickle("data.pkl").value
    both = PickleDict([("ema", not_a_module()), ("model", good)])
    assert [held.candidate.key for held in state_dicts(both, None)] == ["model"]
    with pytest.raises(Unreadable, match="inner is not stored"):
        state_dicts(PickleDict([("ema", not_a_module())]), None)


class Twice(nn.Module):
    """A module that holds another one under two names."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.a = self.b = inner


def test_small_files_with_very_many_names_end_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composecli.files.checkpoint_weights.MAX_NAMES", 1000)
    module: nn.Module = nn.Linear(1, 1, bias=False)
    for _ in range(9):
        module = Twice(module)
    many = held_in(tmp_path, {str(number): Twice(module) for number in range(500)})
    assert [len(held.weights) for held in many] == [1024]
    monkeypatch.setattr("composecli.files.pickled_module.MAX_TENSORS", 100)
    with pytest.raises(Unreadable, match="nested deeper"):
        held_in(tmp_path, {str(number): Twice(module) for number in range(500)})
