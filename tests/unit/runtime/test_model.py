"""What is common to models of every kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from composecli.core.facts import ArgumentFact
from composecli.core.model_ref import FileReference, ModelKind
from composecli.runtime.loading import load
from composecli.runtime.model import (
    could_not_load,
    eager_arguments,
    is_exported,
    set_training,
)
from composecli.workers.protocol import OpenRequest, Training
from tests.models import Shelf


def request(path: str, kind: ModelKind, training: Training = Training.SAVED) -> OpenRequest:
    return OpenRequest(FileReference(path), kind, "cpu", training, trusted=True, key=None)


class Annotated(nn.Module):
    def forward(
        self, x: torch.Tensor, scale: float = 1.0, *, mask: object = None, **rest: object
    ) -> torch.Tensor:
        return x * scale


class Unsigned(nn.Module):
    forward = 3


def test_positional_arguments_are_known_by_name_type_and_default() -> None:
    assert eager_arguments(Annotated()) == (
        ArgumentFact("x", "torch.Tensor", required=True),
        ArgumentFact("scale", "float", required=False),
    )


def test_a_forward_without_a_signature_has_no_known_arguments() -> None:
    assert eager_arguments(Unsigned()) == ()


@pytest.mark.parametrize(
    ("training", "expected"),
    [(Training.SAVED, False), (Training.EVAL, False), (Training.TRAIN, True)],
)
def test_training_mode_is_changed_only_on_request(training: Training, expected: bool) -> None:
    module = nn.Sequential(nn.Dropout()).eval()
    set_training(module, training)
    assert module[0].training is expected


@pytest.mark.parametrize(
    ("form", "kind", "exported"),
    [
        ("scripted", ModelKind.TORCHSCRIPT, False),
        ("pickled", ModelKind.PICKLED, False),
        ("exported", ModelKind.EXPORTED, True),
    ],
)
def test_only_an_exported_program_cannot_be_switched_between_modes(
    shelf: Shelf, form: str, kind: ModelKind, exported: bool
) -> None:
    path = shelf.save("loaded_linear", nn.Linear(10, 5), form, (torch.rand(2, 10),))
    model = load(request(path, kind))
    assert model.name == path
    assert is_exported(model.module) is exported
    assert model.switchable is not exported


def test_a_failure_to_load_names_the_file_and_the_reason() -> None:
    error = could_not_load(request("a.pt", ModelKind.PICKLED), RuntimeError("bad magic number"))
    assert error.problem.where == "a.pt"
    assert error.problem.notes == ("bad magic number",)
