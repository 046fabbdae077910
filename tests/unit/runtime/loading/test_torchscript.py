"""TorchScript archives: most load without their tensors; a note states why others do not."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt
from composecli.core.facts import ArgumentFact
from composecli.core.rules import Rule
from composecli.runtime.loading import load, load_whole, with_values
from composecli.runtime.loading.torchscript import script_arguments
from tests.models import Counter, Shelf, Tied
from tests.unit.runtime.opening import open_request, same_state, state


class ToList(nn.Module):
    """Reads a tensor without an op."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sizes", torch.tensor([2.0, 3.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sizes: list[float] = self.sizes.tolist()
        return x * sizes[0]


class Tables(nn.Module):
    """Holds tensors in a list, which can be filled later, and in a dict, which cannot."""

    def __init__(self, *, with_dict: bool) -> None:
        super().__init__()
        self.listed = [torch.ones(2), torch.ones(3)]
        self.named = {"a": torch.ones(2)} if with_dict else {"a": 1}
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + self.listed[0] + self.named["a"]


class Typed(nn.Module):
    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, scale: float = 2.0
    ) -> torch.Tensor:
        return x * scale if mask is None else x * mask


def frozen(tmp_path: Path) -> Path:
    path = tmp_path / "frozen.pt"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.freeze(torch.jit.script(nn.Linear(600, 500).eval())).save(str(path))
    return path


def test_a_frozen_module_is_loaded_whole(tmp_path: Path) -> None:
    model = load(open_request(frozen(tmp_path), "scripted"))
    assert model.weights is None
    assert model.notes == ("all its tensors were read: they are constants of its code",)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (ToList(), "its code reads them without an op (tolist)"),
        (Tables(with_dict=True), "some are in data structures of the model's own"),
    ],
    ids=["tolist", "dict"],
)
def test_a_note_states_why_tensors_were_read(shelf: Shelf, module: nn.Module, reason: str) -> None:
    path = shelf.save(f"script_{type(module).__name__}", module)
    model = load(open_request(path, "scripted"))
    assert model.weights is None
    assert model.notes == (f"all its tensors were read: {reason}",)


@pytest.mark.parametrize("module", [Tied(), Counter(), Tables(with_dict=False), nn.BatchNorm1d(3)])
def test_values_are_read_on_demand(shelf: Shelf, module: nn.Module) -> None:
    request = open_request(shelf.save(f"script_lazy_{type(module).__name__}", module), "scripted")
    model = load(request)
    assert model.weights is not None
    assert not model.notes
    assert same_state(state(with_values(model)), state(load_whole(request)))


def test_the_state_of_each_submodule_is_known_without_its_parameters(shelf: Shelf) -> None:
    model = load(open_request(shelf.save("script_counter", Counter()), "scripted"))
    assert set(model.attributes[""]) >= {"calls", "seen", "training"}
    assert not {"weight", "bias"} & set(model.attributes["fc"])


def test_a_module_without_forward_cannot_be_called(shelf: Shelf) -> None:
    request = open_request(shelf.save("script_lstm", nn.LSTM(3, 2)), "scripted")
    for read in (load, load_whole):
        with pytest.raises(CouldNotAttempt) as raised:
            read(request)
        assert raised.value.problem.rule == Rule.COULD_NOT_LOAD
        assert "no method named forward" in raised.value.problem.title
        assert raised.value.problem.notes[0].startswith("its methods: forward")


def test_an_optional_argument_without_a_default_is_required() -> None:
    assert script_arguments(torch.jit.script(Typed())) == (
        ArgumentFact("x", "Tensor", required=True),
        ArgumentFact("mask", "Optional[Tensor]", required=True),
        ArgumentFact("scale", "float", required=False),
    )
