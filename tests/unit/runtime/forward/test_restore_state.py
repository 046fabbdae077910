"""A forward leaves models and random numbers as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.model_ref import FileReference, ModelKind
from composecli.runtime.forward.restore_state import ParameterMutated, preserving_state
from composecli.runtime.loading import load_whole
from composecli.runtime.model import Model
from composecli.workers.protocol import OpenRequest, Training
from tests.models import Counter, Shelf

FORMS = {"scripted": ModelKind.TORCHSCRIPT, "pickled": ModelKind.PICKLED}


def loaded(shelf: Shelf, name: str, module: nn.Module, form: str) -> Model:
    reference = FileReference(shelf.save(f"restored_{name}", module, form))
    return load_whole(OpenRequest(reference, FORMS[form], "cpu", Training.SAVED, True, None))


class Changing(nn.Module):
    """Changes everything that a forward may change, but for its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("total", torch.zeros(1))
        self.history: list[int] = [0]
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.total += x.sum()
        self.history.append(self.count)
        return self.norm(x)


def state(module: Any) -> tuple[Any, ...]:
    buffers = {name: buffer.clone().tolist() for name, buffer in module.named_buffers()}
    return buffers, module.count, list(module.history), module.norm.training


@pytest.mark.parametrize("form", FORMS)
def test_buffers_attributes_and_modes_are_restored(shelf: Shelf, form: str) -> None:
    model = loaded(shelf, "changing", Changing(), form)
    before = state(model.module)
    with preserving_state([model], 0):
        model.module(torch.rand(3, 4))
        model.module.eval()
        assert state(model.module) != before
    assert state(model.module) == before


@pytest.mark.parametrize("form", FORMS)
def test_state_is_restored_after_an_error(shelf: Shelf, form: str) -> None:
    model = loaded(shelf, "changing", Changing(), form)
    before = state(model.module)
    with pytest.raises(RuntimeError), preserving_state([model], 0):
        model.module(torch.rand(3, 5))
    assert state(model.module) == before


def test_attributes_that_a_forward_adds_are_removed(shelf: Shelf) -> None:
    model = loaded(shelf, "changing", Changing(), "pickled")
    with preserving_state([model], 0):
        model.module.norm.cache = torch.ones(1)
        del model.module.count
    assert not hasattr(model.module.norm, "cache")
    assert model.module.count == 0


def test_the_body_runs_under_its_seed_and_the_callers_numbers_go_on(shelf: Shelf) -> None:
    model = loaded(shelf, "counter", Counter(), "pickled")
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    results = []
    for _ in range(2):
        with torch.no_grad(), preserving_state([model], 3):
            results.append(model.module(torch.ones(2, 10)))
    assert torch.equal(*results)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_write_to_a_parameter_is_reported(shelf: Shelf, form: str) -> None:
    model = loaded(shelf, "linear", nn.Linear(10, 5), form)
    with pytest.raises(ParameterMutated), preserving_state([model], 0), torch.no_grad():
        model.module.weight.mul_(2)


def test_a_buffer_with_shared_elements_is_left_alone() -> None:
    module = nn.Module()
    module.register_buffer("mask", torch.zeros(1).expand(4))
    module.register_buffer("nowhere", torch.zeros(2, device="meta"))
    request = OpenRequest(
        FileReference("x.pt"), ModelKind.PICKLED, "cpu", Training.SAVED, True, None
    )
    with preserving_state([Model(module, request, (), {})], 0):
        pass
    assert module.mask.tolist() == [0, 0, 0, 0]


def test_several_models_are_restored_together(shelf: Shelf) -> None:
    models = [loaded(shelf, "changing", Changing(), form) for form in FORMS]
    before = [state(model.module) for model in models]
    with preserving_state(models, 0):
        for model in models:
            model.module(torch.rand(3, 4))
    assert [state(model.module) for model in models] == before


class Resizing(nn.Module):
    """Resizes tensors whose memory is not its own, which fails and leaves them too large."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(4.0))
        self.kept = [torch.arange(3.0)]
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, which: int) -> torch.Tensor:
        size = 1_000_000
        if which == 0:
            return self.table.resize_(size)
        if which == 1:
            return self.kept[0].resize_(size)
        with torch.no_grad():
            return self.layer.weight.detach().resize_(size)


def with_memory_of_others(model: Model) -> Model:
    """Give each tensor memory that torch cannot resize, as that of a mapped file."""
    tensors = [model.module.table, model.module.kept[0], model.module.layer.weight]
    for tensor in tensors:
        held = torch.frombuffer(bytearray(tensor.detach().numpy().tobytes()), dtype=torch.float32)
        with torch.no_grad():
            tensor.set_(held.view(tensor.shape))
    return model


@pytest.mark.parametrize("which", [0, 1, 2])
def test_no_tensor_stays_larger_than_its_memory(which: int) -> None:
    reference = FileReference("net.pt")
    request = OpenRequest(reference, ModelKind.PICKLED, "cpu", Training.SAVED, True, None)
    model = with_memory_of_others(Model(Resizing(), request, (), {}))
    with pytest.raises(RuntimeError, match="resiz"), preserving_state([model], 0):
        model.module(torch.ones(1), which)
    module: Any = model.module
    assert module.table.tolist() == [0, 1, 2, 3]
    assert module.kept[0].tolist() == [0, 1, 2]
    assert module.layer.weight.shape == (4, 4)


@pytest.mark.parametrize("form", FORMS)
def test_a_list_of_the_parameters_is_no_write_to_them(shelf: Shelf, form: str) -> None:
    model = loaded(shelf, "flat_weights", nn.Sequential(nn.LSTM(4, 3)), form)
    with preserving_state([model], 0):
        model.module(torch.rand(5, 2, 4))


@pytest.mark.parametrize("form", FORMS)
def test_no_parameter_is_copied(shelf: Shelf, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(shelf, "uncopied_weights", nn.Sequential(nn.LSTM(4, 3)), form)
    copied = list[int]()
    clone = torch.Tensor.clone

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        copied.append(tensor.data_ptr())
        return clone(tensor)

    monkeypatch.setattr(torch.Tensor, "clone", counted)
    with preserving_state([model], 0):
        model.module(torch.rand(5, 2, 4))
    weights = {parameter.data_ptr() for parameter in model.module.parameters()}
    assert not weights.intersection(copied)
