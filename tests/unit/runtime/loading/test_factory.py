"""Factories: a module made by code that the user named, with the weights of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FactoryReference, ModelKind
from composecli.core.rules import Rule
from composecli.runtime.loading import load, load_whole, with_values
from composecli.runtime.loading.strict_keys import MAX_KEYS_SHOWN
from composecli.workers.protocol import OpenRequest, Training
from tests.unit.runtime.opening import same_state, state

CODE = """
from torch import nn

def network():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

def wide():
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(20)))

def text():
    return "no module"

def fails():
    raise ValueError("one line\\nand the reason")

def leaves():
    raise SystemExit(3)
"""
Save = Callable[[Any], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made.py").write_text(CODE)
    return tmp_path


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def request(folder: Path, checkpoint: Any, factory: str = "network", **changes: Any) -> OpenRequest:
    path = folder / "weights.pt"
    torch.save(checkpoint, path)
    reference = FactoryReference(str(folder / "made.py"), factory, str(path))
    options: dict[str, Any] = {
        "device": "cpu", "training": Training.SAVED, "trusted": False, "key": None, **changes,
    }  # fmt: skip
    return OpenRequest(reference, ModelKind.FACTORY, **options)


def problem_of(request: OpenRequest) -> Problem:
    """The problem, which is the same whether values are read or only sizes."""
    problems = list[Problem]()
    for read in (load, load_whole):
        with pytest.raises(CouldNotAttempt) as raised:
            read(request)
        problems.append(raised.value.problem)
    assert problems[0] == problems[1]
    return problems[0]


def prefixed(prefix: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in weights.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": {"state_dict": weights}},
        lambda weights: prefixed("module.", weights),
        lambda weights: prefixed("module._orig_mod.", weights),
        lambda weights: {"state_dict": prefixed("model.", weights)},
    ],
    ids=["plain", "wrapped", "wrapped twice", "prefix", "two prefixes", "wrapped and prefixed"],
)
def test_weights_are_found_in_the_checkpoints_of_training_code(
    folder: Path, wrap: Callable[[Any], Any]
) -> None:
    weights = network().state_dict()
    asked = request(folder, wrap(weights))
    model = load(asked)
    assert model.weights is not None
    assert not same_state(state(model), dict(weights))
    assert same_state(state(with_values(model)), dict(weights))
    assert same_state(state(load_whole(asked)), dict(weights))


def test_a_dotted_key_names_the_entry_with_the_weights(folder: Path) -> None:
    weights, average = network().state_dict(), nn.Linear(4, 3).state_dict()
    checkpoint = {"ema": {"shadow": weights}, "state_dict": average}
    model = load_whole(request(folder, checkpoint, key="ema.shadow"))
    assert same_state(state(model), dict(weights))


@pytest.mark.parametrize(
    ("checkpoint", "key", "note"),
    [
        (
            {"state_dict": {"a": torch.ones(1)}, "epoch": 3},
            "ema",
            "available keys: state_dict, epoch",
        ),
        ({"a": torch.ones(1)}, "a.b", "available keys: a"),
        ({"epoch": 3, "w": torch.ones(1)}, "epoch", "epoch contains: int"),
    ],
)
def test_a_checkpoint_without_the_entry_lists_what_it_has(
    folder: Path, checkpoint: Any, key: str | None, note: str
) -> None:
    problem = problem_of(request(folder, checkpoint, key=key))
    assert problem.rule == Rule.KEYS_DO_NOT_FIT
    assert problem.notes == (note,)


def test_the_state_of_an_optimizer_is_not_taken_for_weights(folder: Path) -> None:
    problem = problem_of(request(folder, {"epoch": 3, "optimizer": {"lr": torch.ones(1)}}))
    assert problem.rule == Rule.KEYS_DO_NOT_FIT
    assert problem.notes == (
        "its entries: epoch, optimizer",
        "saved for training to go on: optimizer",
    )


def test_keys_that_differ_are_listed_by_what_is_wrong(folder: Path) -> None:
    weights = dict(network().state_dict())
    del weights["1.running_var"]
    weights["0.weight"] = torch.ones(5, 4)
    weights["head.weight"] = torch.ones(2)
    problem = problem_of(request(folder, weights))
    assert problem.rule == Rule.KEYS_DO_NOT_FIT
    assert problem.notes == (
        "5 rows in the file are 3 in the module, in 0",
        "the file lacks 1.running_var",
        "the module lacks head.weight",
        "1 missing, 1 unexpected and 1 resized keys",
        "missing     1.running_var  [3]",
        "unexpected  head.weight",
        "resized     0.weight  [5, 4] in the file, [3, 4] in the module",
    )


def test_a_long_list_of_keys_is_cut(folder: Path) -> None:
    problem = problem_of(request(folder, {"other": torch.ones(1)}, "wide"))
    assert "40 missing, 1 unexpected and 0 resized keys" in problem.notes
    # The cause, the counts, the names of two kinds, and the number of the others.
    assert len(problem.notes) == 2 + MAX_KEYS_SHOWN + 1 + 1
    assert problem.notes[-1] == "and 36 more"


@pytest.mark.parametrize(
    ("factory", "title", "notes"),
    [
        ("text", "the factory returned a str, not a module", ()),
        (
            "fails", "the factory could not be run",
            ("ValueError: one line", "at line 14 of made.py"),
        ),
        ("leaves", "the factory could not be run", ("SystemExit: 3", "at line 17 of made.py")),
        (
            "missing", "made.py has no missing",
            (
                "module 'made' has no attribute 'missing'",
                "it defines: network, wide, text, fails, leaves",
            ),
        ),
    ],
)  # fmt: skip
def test_a_factory_that_makes_no_module_is_a_problem(
    folder: Path, factory: str, title: str, notes: tuple[str, ...]
) -> None:
    problem = problem_of(request(folder, network().state_dict(), factory))
    shown = problem.title.replace(f"{folder}/", "")
    assert (problem.rule, shown, problem.notes) == (Rule.FACTORY_FAILED, title, notes)


def test_a_factory_is_imported_from_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    (folder / "factory_package").mkdir()
    (folder / "factory_package" / "nets.py").write_text(CODE)
    weights = network().state_dict()
    torch.save(weights, "weights.pt")
    reference = FactoryReference("factory_package.nets", "network", "weights.pt")
    asked = OpenRequest(reference, ModelKind.FACTORY, "cpu", Training.EVAL, trusted=False, key=None)
    model = load_whole(asked)
    assert same_state(state(model), dict(weights))
    assert not model.module.training


def test_safetensors_are_read_like_a_state_dict(folder: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    weights = dict(network().state_dict())
    asked = request(folder, weights)
    safetensors.save_file(weights, asked.path)
    assert same_state(state(with_values(load(asked))), weights)
    assert same_state(state(load_whole(asked)), weights)
    Path(asked.path).write_bytes(b"\x08\0\0\0\0\0\0\0{not json")
    assert problem_of(asked).rule == Rule.COULD_NOT_LOAD
