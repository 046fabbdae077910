"""The loaders: every kind of model, without its tensors and with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from composecli.core.model_ref import ModelKind
from composecli.runtime.loading import load, load_whole, loader_of, with_values
from composecli.workers.protocol import Training
from tests.models import Shelf
from tests.unit.runtime.opening import open_request, same_state, state

FORMS = ("scripted", "traced", "exported", "pickled")


def saved_network(shelf: Shelf, form: str) -> str:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    return shelf.save("loaders_network", module, form, (torch.rand(2, 4),))


@pytest.mark.parametrize("kind", ModelKind)
def test_every_kind_of_model_has_a_loader(kind: ModelKind) -> None:
    assert callable(loader_of(kind).load)


@pytest.mark.parametrize("form", FORMS)
def test_tensors_are_zero_until_they_are_read(shelf: Shelf, form: str) -> None:
    request = open_request(saved_network(shelf, form), form)
    model = load(request)
    assert model.weights is not None
    assert not any(tensor.any() for tensor in state(model).values())
    assert same_state(state(with_values(model)), state(load_whole(request)))


@pytest.mark.parametrize("form", FORMS)
def test_a_model_that_is_loaded_whole_has_nothing_left_to_read(shelf: Shelf, form: str) -> None:
    model = load_whole(open_request(saved_network(shelf, form), form))
    assert model.weights is None
    before = state(model)
    assert same_state(before, state(with_values(model)))
    assert any(tensor.any() for tensor in before.values())


@pytest.mark.parametrize("form", FORMS)
def test_a_model_on_meta_has_sizes_and_no_weights(shelf: Shelf, form: str) -> None:
    model = load(open_request(saved_network(shelf, form), form, device="meta"))
    assert model.weights is None
    assert all(tensor.is_meta for tensor in model.module.state_dict().values())
    assert model.module(torch.empty(2, 4, device="meta")).shape == (2, 3)


@pytest.mark.parametrize("form", ["scripted", "pickled"])
@pytest.mark.parametrize("read", [load, load_whole])
def test_the_training_state_is_set_if_requested(shelf: Shelf, form: str, read: object) -> None:
    path = saved_network(shelf, form)
    assert callable(read)
    for training, expected in (
        (Training.SAVED, False), (Training.EVAL, False), (Training.TRAIN, True),
    ):  # fmt: skip
        assert read(open_request(path, form, training=training)).module.training is expected


@pytest.mark.parametrize("form", FORMS)
def test_the_arguments_of_a_model_are_known(shelf: Shelf, form: str) -> None:
    request = open_request(saved_network(shelf, form), form)
    (argument,) = load(request).arguments
    assert argument.name == "input"
    assert argument.required
    assert load_whole(request).arguments == (argument,)
