"""Pickled modules: torch.nn's classes load as they are, unless their behaviour is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.runtime.loading import load, load_whole, with_values
from tests.models import Shelf, Tied
from tests.unit.runtime.opening import open_request, same_state, state


def saved(tmp_path: Path, module: Any) -> Path:
    path = tmp_path / "module.pt"
    torch.save(module, path)
    return path


def problem_of(path: Path, **changes: Any) -> Problem:
    with pytest.raises(CouldNotAttempt) as raised:
        load(open_request(path, "pickled", **changes))
    return raised.value.problem


def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.LSTM(4, 3, 2, bidirectional=True),
        transformer(),
        nn.Embedding(9, 4, padding_idx=0),
        nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.ParameterList([torch.ones(2)])}),
        nn.Identity(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_of_torch_nn_load_without_their_tensors(tmp_path: Path, module: nn.Module) -> None:
    model = load(open_request(saved(tmp_path, module), "pickled"))
    assert not model.notes
    assert model.weights is not None
    assert same_state(state(with_values(model)), module.state_dict())


def test_a_shared_parameter_stays_one_parameter(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    model = with_values(load(open_request(saved(tmp_path, module), "pickled")))
    assert model.module[0].weight is model.module[1].weight


def test_tensors_in_a_container_are_read_with_the_whole_file(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    module.extra = [torch.ones(2), {"inner": torch.ones(3)}]
    model = load(open_request(saved(tmp_path, module), "pickled"))
    assert model.weights is None
    assert model.notes == (
        "all its tensors were read: some are in data structures of the model's own",
    )
    assert torch.equal(model.module.weight, module.weight)


def test_a_tensor_of_another_class_is_read_with_the_whole_file(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    module.extra = nn.Parameter(torch.ones(2))
    module.__dict__["plain"] = nn.Parameter(torch.ones(2))
    model = load(open_request(saved(tmp_path, module), "pickled"))
    assert model.weights is None
    assert "a tensor of another class" in model.notes[0]


@pytest.mark.parametrize(
    ("name", "value", "note"),
    [
        ("_parameters", [], "the module: _parameters is a list"),
        ("_modules", {"0": torch.ones(1)}, "the module: _modules is a dict"),
        ("_buffers", {"mean": 3}, "the module: _buffers is a dict"),
        ("training", "yes", "the module: training is a str"),
        ("_non_persistent_buffers_set", [], "the module: _non_persistent_buffers_set is a list"),
    ],
)
def test_a_module_with_malformed_internals_is_refused(
    tmp_path: Path, name: str, value: object, note: str
) -> None:
    module = nn.Linear(3, 2)
    module.__dict__[name] = value
    problem = problem_of(saved(tmp_path, module))
    assert problem.rule == Rule.COULD_NOT_LOAD
    assert problem.notes == (note,)


def test_the_problem_names_the_submodule_with_malformed_internals(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Sequential(nn.Linear(3, 2)))
    module[0][0].__dict__["_buffers"] = None
    problem = problem_of(saved(tmp_path, module))
    assert problem.notes == ("0.0: _buffers is a NoneType",)


@pytest.mark.parametrize("name", ["forward", "_call_impl", "extra_repr"])
def test_an_attribute_that_hides_a_method_is_refused(tmp_path: Path, name: str) -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    module[0].__dict__[name] = "not a method"
    problem = problem_of(saved(tmp_path, module))
    assert problem.rule == Rule.HOOKS_NOT_TRUSTED
    assert any(f"{name} is overridden" in note for note in problem.notes)


def test_a_class_of_its_own_needs_trust(tmp_path: Path, shelf: Shelf) -> None:
    path = Path(shelf.save("pickled_tied", Tied(), "pickled"))
    assert problem_of(path).rule == Rule.IMPORTS_NOT_TRUSTED
    model = load(open_request(path, "pickled", trusted=True))
    assert isinstance(model.module, Tied)
    assert [argument.name for argument in model.arguments] == ["x"]


def test_a_class_that_cannot_be_imported_is_named(tmp_path: Path, shelf: Shelf) -> None:
    content = Path(shelf.save("pickled_tied", Tied(), "pickled")).read_bytes()
    path = tmp_path / "module.pt"
    path.write_bytes(_renamed_module(content))
    problem = problem_of(path, trusted=True)
    assert problem.rule == Rule.PACKAGE_MISSING
    assert problem.notes == ("No module named 'absent'",)


def _renamed_module(content: bytes) -> bytes:
    """The archive with its class moved from `tests.models` to `absent.models`."""
    import io
    import zipfile

    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            data = source.read(name).replace(b"tests.models", b"absent.model")
            archive.writestr(name, data)
    return target.getvalue()


def test_values_are_the_same_when_the_file_is_loaded_whole(tmp_path: Path) -> None:
    path = saved(tmp_path, transformer())
    request = open_request(path, "pickled")
    assert same_state(state(load_whole(request)), state(with_values(load(request))))
