"""Weights fit a module if torch loads them strictly, its load hooks included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import FactoryReference, ModelKind
from composecli.core.rules import Rule
from composecli.runtime.loading import load, with_values
from composecli.runtime.loading.strict_keys import refuse_other_keys
from composecli.workers.protocol import OpenRequest, Training

REFERENCE = FactoryReference("made.py", "network", "weights.pt")


class Renames(nn.Module):
    """Loads weights that were saved under an older name."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        for name in ("weight", "bias"):
            if f"{prefix}old.{name}" in state:
                state[f"{prefix}fc.{name}"] = state.pop(f"{prefix}old.{name}")
        super()._load_from_state_dict(state, prefix, *rest)


def norm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def without_counts(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if "num_batches" not in name}


def old_weight_norm() -> dict[str, Any]:
    with pytest.warns(FutureWarning):
        return dict(nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3))).state_dict())


def renamed() -> dict[str, Any]:
    return {name.replace("fc.", "old."): value for name, value in Renames().state_dict().items()}


def same_versions_without_counts() -> dict[str, Any]:
    state: dict[str, Any] = norm().state_dict()
    del state["1.num_batches_tracked"]
    return state


@pytest.mark.parametrize(
    ("module", "weights"),
    [
        (norm, lambda: without_counts(norm().state_dict())),
        (
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))),
            old_weight_norm,
        ),
        (Renames, renamed),
        (norm, same_versions_without_counts),
        (norm, lambda: {**norm().state_dict(), "extra": torch.zeros(1)}),
        (norm, lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)).state_dict()),
    ],
    ids=["no counts", "weight norm", "own hook", "counts of this version", "extra", "resized"],
)
def test_the_judge_is_the_strict_loading_of_torch(
    module: Callable[[], nn.Module], weights: Callable[[], dict[str, Any]]
) -> None:
    own, stored = module(), weights()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    refused = False
    try:
        refuse_other_keys(own, stored, REFERENCE)
    except CouldNotAttempt:
        refused = True
    assert all(torch.equal(own.state_dict()[name], value) for name, value in before.items())
    try:
        module().load_state_dict(stored)
    except RuntimeError:
        assert refused
    else:
        assert not refused


CODE = """
import torch
from torch import nn

def norm():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

def on_meta():
    with torch.device("meta"):
        return norm()

class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.register_buffer("table", torch.zeros(3), persistent=False)

def table_on_meta():
    with torch.device("meta"):
        return Table()
"""


def open_request(folder: Path, factory: str, weights: Any) -> OpenRequest:
    (folder / "made.py").write_text(CODE)
    torch.save(weights, folder / "weights.pt")
    reference = FactoryReference(str(folder / "made.py"), factory, str(folder / "weights.pt"))
    return OpenRequest(reference, ModelKind.FACTORY, "cpu", Training.SAVED, trusted=False, key=None)


@pytest.mark.parametrize("factory", ["norm", "on_meta"])
def test_the_module_has_the_values_of_the_file(tmp_path: Path, factory: str) -> None:
    state = norm().state_dict()
    model = with_values(load(open_request(tmp_path, factory, state)))
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, state[name])


def test_versions_survive_the_prefix_of_a_wrapper(tmp_path: Path) -> None:
    wrapped = nn.ModuleDict({"module": norm()}).state_dict()
    del wrapped["module.1.num_batches_tracked"]
    with pytest.raises(CouldNotAttempt) as raised:
        load(open_request(tmp_path, "norm", wrapped))
    assert raised.value.problem.notes == ("missing     1.num_batches_tracked  []",)


def test_a_tensor_on_meta_without_weights_is_named(tmp_path: Path) -> None:
    weights = {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}
    with pytest.raises(CouldNotAttempt) as raised:
        load(open_request(tmp_path, "table_on_meta", weights))
    assert raised.value.problem.rule is Rule.FACTORY_FAILED
    assert raised.value.problem.notes == ("without values: table",)
