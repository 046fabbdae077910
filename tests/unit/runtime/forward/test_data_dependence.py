"""Forwards without weights: results of known sizes need no values, and the others say which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.model_ref import FileReference, ModelKind
from composecli.runtime.forward.data_dependence import (
    EVERYTHING,
    MAX_RECORDS,
    WRITABLE,
    LastOpError,
    ValuesRequired,
    weightless,
)
from composecli.runtime.loading import load
from composecli.runtime.model import Model
from composecli.runtime.weights.lazy_weights import ArchiveWeights
from composecli.workers.protocol import OpenRequest, Training
from tests.models import Shelf, Table, encoder

FORMS = {"scripted": ModelKind.TORCHSCRIPT, "pickled": ModelKind.PICKLED}


def loaded(shelf: Shelf, name: str, module: nn.Module, form: str) -> Model:
    reference = FileReference(shelf.save(f"dependence_{name}", module, form))
    return load(OpenRequest(reference, FORMS[form], "cpu", Training.SAVED, True, None))


def weights_of(model: Model) -> ArchiveWeights:
    assert isinstance(model.weights, ArchiveWeights)
    return model.weights


def names(model: Model, needed: ValuesRequired) -> set[str]:
    """The attributes whose values are needed."""
    records = {record for _, record in needed.records}
    return {slot.name for slot in weights_of(model).slots if slot.record in records}


def required(model: Model, forward: Callable[[], Any]) -> ValuesRequired:
    with pytest.raises(ValuesRequired) as raised, torch.no_grad(), weightless({7: model}):
        forward()
    return raised.value


@pytest.mark.parametrize("form", FORMS)
def test_sizes_do_not_depend_on_weights(shelf: Shelf, form: str) -> None:
    model = loaded(shelf, "unread", encoder(), form)
    with torch.no_grad(), weightless({0: model}):
        result = model.module(torch.rand(2, 3, 16, 16))
    assert result.shape == (2, 64, 2, 2)
    assert len(weights_of(model).unread) == len(weights_of(model).slots)


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_size_is_an_error_of_the_op_without_weights_too(shelf: Shelf, form: str) -> None:
    model = loaded(shelf, "unread", encoder(), form)
    last_error = LastOpError()
    with pytest.raises(RuntimeError), torch.no_grad(), weightless({0: model}, last_error):
        model.module(torch.rand(2, 4, 16, 16))
    assert "expected input" in str(last_error.error)


@pytest.mark.parametrize("form", FORMS)
def test_only_the_weights_behind_a_value_are_required(shelf: Shelf, form: str) -> None:
    model = loaded(shelf, "linear_in_two", nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 1)), form)
    x = torch.rand(5, 4)

    def forward() -> torch.Tensor:
        first, second = model.module.children()
        first(x)
        return second(x).nonzero()

    needed = required(model, forward)
    assert needed.op == "aten::nonzero"
    assert names(model, needed) == {"1.weight", "1.bias"}
    assert {number for number, _ in needed.records} == {7}


@pytest.mark.parametrize("op", ["item", "tolist", "numpy"])
def test_python_code_that_looks_at_values_requires_them(shelf: Shelf, op: str) -> None:
    model = loaded(shelf, "one", nn.Linear(4, 1), "pickled")

    def forward() -> None:
        result = model.module(torch.rand(1, 4))
        getattr(result, op)()

    needed = required(model, forward)
    assert names(model, needed) == {"weight", "bias"}


def test_an_error_that_the_model_handles_still_requires_values(shelf: Shelf) -> None:
    model = loaded(shelf, "one", nn.Linear(4, 1), "pickled")

    def forward() -> int:
        try:
            return int(model.module(torch.rand(1, 4)))
        except Exception:
            return 0

    assert required(model, forward).op == "aten::_local_scalar_dense"


@pytest.mark.parametrize("form", FORMS)
def test_a_small_table_is_read_in_the_middle_of_the_forward(shelf: Shelf, form: str) -> None:
    model = loaded(shelf, "table", Table(), form)
    x = torch.rand(2, 5)
    with torch.no_grad(), weightless({0: model}):
        result = model.module(x)
    assert torch.equal(result, x)
    assert not weights_of(model).unread
    assert weights_of(model).readings[0].tensors == ("table",)


def test_a_value_behind_many_weights_requires_everything(shelf: Shelf) -> None:
    layers = nn.Sequential(*[nn.Linear(4, 4, bias=False) for _ in range(MAX_RECORDS + 1)])
    model = loaded(shelf, "many", layers, "pickled")
    needed = required(model, lambda: model.module(torch.rand(1, 4)).nonzero())
    assert needed.records == EVERYTHING


@pytest.mark.parametrize(("width", "writable"), [(8, True), (300, False)])
def test_only_a_large_parameter_cannot_be_written_to(
    shelf: Shelf, width: int, writable: bool
) -> None:
    model = loaded(shelf, f"square_{width}", nn.Linear(width, width), "pickled")

    def forward() -> None:
        model.module.weight.mul_(0.5)

    if writable:
        with torch.no_grad(), weightless({0: model}):
            forward()
    else:
        assert required(model, forward).records == WRITABLE


def test_nothing_is_required_once_everything_is_read(shelf: Shelf) -> None:
    module = nn.Linear(4, 1)
    model = loaded(shelf, "read", module, "pickled")
    weights_of(model).read()
    x = torch.rand(3, 4)
    with torch.no_grad(), weightless({0: model}):
        torch.testing.assert_close(model.module(x).tolist(), module(x).tolist())
