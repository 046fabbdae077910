"""Weights fit a module if torch loads them strictly, with all of the code that takes part."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import FactoryReference, ModelKind
from composecli.core.rules import Rule
from composecli.runtime.loading import load, load_whole, with_values
from composecli.workers.protocol import OpenRequest, Training

CODE = '''
import threading

import torch
from torch import nn


def norm():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def weight_norm():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))


class Renames(nn.Module):
    """Loads weights that were saved under an older name."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def _load_from_state_dict(self, state, prefix, *rest):
        for name in ("weight", "bias"):
            if f"{prefix}old.{name}" in state:
                state[f"{prefix}fc.{name}"] = state.pop(f"{prefix}old.{name}")
        super()._load_from_state_dict(state, prefix, *rest)


class Locked(nn.Module):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.lock = threading.Lock()


class Refuses(nn.Module):
    """Reads a value of the weights to accept them or not; its keys are always right."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self._register_load_state_dict_pre_hook(self.look)

    def look(self, state, prefix, metadata, strict, missing, unexpected, messages):
        if state[f"{prefix}fc.bias"][0].item() < 0:
            messages.append("the first bias is negative")


class Extra(nn.Module):
    """Has a state that is not a tensor."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        if state["version"] != 2:
            raise ValueError("another version")


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.register_buffer("table", torch.zeros(3), persistent=False)


def on_meta():
    with torch.device("meta"):
        return norm()


def tied_on_meta():
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        module[1].weight = module[0].weight
        return module


def table_on_meta():
    with torch.device("meta"):
        return Table()
'''
Weights = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made.py").write_text(CODE)
    return tmp_path


def make(folder: Path, factory: str) -> nn.Module:
    spec = importlib.util.spec_from_file_location("made_here", folder / "made.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, factory)()


def open_request(folder: Path, factory: str, weights: Any) -> OpenRequest:
    torch.save(weights, folder / "weights.pt")
    reference = FactoryReference(str(folder / "made.py"), factory, str(folder / "weights.pt"))
    return OpenRequest(reference, ModelKind.FACTORY, "cpu", Training.SAVED, trusted=False, key=None)


def plain(state: Weights) -> Weights:
    """Return the weights without the versions of the modules."""
    return dict(state)


def without_counts(state: Weights) -> Weights:
    del state["1.num_batches_tracked"]
    return state


def with_old_weight_norm(_state: Weights) -> Weights:
    with pytest.warns(FutureWarning):
        return dict(nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3))).state_dict())


def with_old_names(state: Weights) -> Weights:
    return {name.replace("fc.", "old."): value for name, value in state.items()}


def with_one_more(state: Weights) -> Weights:
    return {**state, "extra": torch.zeros(1)}


def with_negative_bias(state: Weights) -> Weights:
    return {name: -torch.ones_like(value) for name, value in state.items()}


def with_positive_bias(state: Weights) -> Weights:
    return {name: torch.ones_like(value) for name, value in state.items()}


def of_another_version(state: Weights) -> Weights:
    return {**state, "_extra_state": {"version": 1}}


def without_extra(state: Weights) -> Weights:
    del state["_extra_state"]
    return state


def narrower(_state: Weights) -> Weights:
    return dict(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)).state_dict())


@pytest.mark.parametrize(
    ("factory", "change"),
    [
        ("norm", plain),
        ("norm", lambda state: without_counts(plain(state))),
        ("norm", without_counts),
        ("norm", with_one_more),
        ("norm", narrower),
        ("weight_norm", plain),
        ("weight_norm", with_old_weight_norm),
        ("weight_norm", with_one_more),
        ("Renames", plain),
        ("Renames", with_old_names),
        ("Locked", plain),
        ("Locked", with_one_more),
        ("Refuses", with_positive_bias),
        ("Refuses", with_negative_bias),
        ("Extra", plain),
        ("Extra", of_another_version),
        ("Extra", without_extra),
    ],
)
def test_weights_are_accepted_if_torch_loads_them_strictly(
    folder: Path, factory: str, change: Callable[[Weights], Weights]
) -> None:
    weights = change(make(folder, factory).state_dict())
    expected = make(folder, factory)
    try:
        expected.load_state_dict(weights)
    except Exception:
        for opening in (load, load_whole):
            with pytest.raises(CouldNotAttempt) as raised:
                opening(open_request(folder, factory, weights))
            assert raised.value.problem.rule is Rule.KEYS_DO_NOT_FIT
        return
    model = with_values(load(open_request(folder, factory, weights)))
    for name, value in expected.state_dict().items():
        held = model.module.state_dict()[name]
        assert torch.equal(held, value) if isinstance(value, torch.Tensor) else held == value


def test_the_reason_of_the_module_is_quoted(folder: Path) -> None:
    weights = with_negative_bias(make(folder, "Refuses").state_dict())
    with pytest.raises(CouldNotAttempt) as raised:
        load(open_request(folder, "Refuses", weights))
    assert any("the first bias is negative" in note for note in raised.value.problem.notes)


def test_a_module_made_on_meta_has_the_values_of_the_file_in_its_own_dtype(folder: Path) -> None:
    state = make(folder, "norm").half().state_dict()
    model = with_values(load(open_request(folder, "on_meta", state)))
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, state[name].to(value.dtype))
    assert model.module[0].weight.dtype is torch.float32


def test_tensors_that_are_shared_on_meta_are_shared(folder: Path) -> None:
    state = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).state_dict()
    model = with_values(load(open_request(folder, "tied_on_meta", state)))
    assert model.module[0].weight is model.module[1].weight


def test_versions_survive_the_prefix_of_a_wrapper(folder: Path) -> None:
    wrapped = nn.ModuleDict({"module": make(folder, "norm")}).state_dict()
    del wrapped["module.1.num_batches_tracked"]
    with pytest.raises(CouldNotAttempt) as raised:
        load(open_request(folder, "norm", wrapped))
    assert raised.value.problem.notes == (
        "the file lacks 1.num_batches_tracked",
        "1 missing, 0 unexpected and 0 resized keys",
        "missing     1.num_batches_tracked  []",
        "stripped from the names of the weights: module.",
    )


def test_a_tensor_on_meta_without_weights_is_named(folder: Path) -> None:
    weights = {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}
    with pytest.raises(CouldNotAttempt) as raised:
        load(open_request(folder, "table_on_meta", weights))
    assert raised.value.problem.rule is Rule.FACTORY_FAILED
    assert raised.value.problem.notes == ("without values: table",)
