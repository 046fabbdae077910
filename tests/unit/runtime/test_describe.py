"""Facts and layer tables of real saved models."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from composecli.core.facts import ModelFacts, NamedSizes
from composecli.core.model_ref import FileReference, ModelKind
from composecli.runtime.describe import collect_facts, layer_rows, shared_names
from composecli.runtime.loading import load
from composecli.runtime.model import Model
from composecli.runtime.tensors import Values
from composecli.workers.protocol import OpenRequest, Training
from tests.models import Shelf, Tied, encoder

KINDS = {
    "scripted": ModelKind.TORCHSCRIPT,
    "traced": ModelKind.TORCHSCRIPT,
    "pickled": ModelKind.PICKLED,
    "exported": ModelKind.EXPORTED,
}


def loaded(
    shelf: Shelf, name: str, module: nn.Module, form: str, example: torch.Tensor | None = None
) -> Model:
    path = shelf.save(f"described_{name}", module, form, () if example is None else (example,))
    kind = KINDS[form]
    return load(OpenRequest(FileReference(path), kind, "cpu", Training.SAVED, True, None))


def facts_of(shelf: Shelf, name: str, module: nn.Module, form: str) -> ModelFacts:
    return collect_facts(loaded(shelf, name, module, form))


def nested() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Linear(3, 2), nn.ReLU())).eval()


@pytest.mark.parametrize("form", ["scripted", "pickled"])
def test_a_shared_parameter_counts_once_and_both_its_names_are_known(
    shelf: Shelf, form: str
) -> None:
    facts = facts_of(shelf, "tied", Tied(), form)
    assert facts.class_name == "Tied"
    assert facts.parameters == facts.trainable == 25 + 5 + 5
    assert facts.size == 4 * facts.parameters
    assert facts.shared == (("one.weight", "other.weight"),)


@pytest.mark.parametrize("form", ["scripted", "pickled"])
def test_frozen_parameters_are_not_trainable_and_dtypes_come_by_frequency(
    shelf: Shelf, form: str
) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2).double(), nn.BatchNorm1d(2))
    module[0].requires_grad_(False)
    facts = facts_of(shelf, "partly_frozen", module, form)
    assert facts.parameters == 15 + 8 + 4
    assert facts.trainable == 8 + 4
    assert facts.dtypes == ("float32", "float64", "int64")
    assert facts.devices == ("cpu",)


@pytest.mark.parametrize(
    ("name", "module", "expected"),
    [
        ("all_train", nn.Sequential(nn.ReLU()).train(), "train"),
        ("all_eval", nn.Sequential(nn.ReLU()).eval(), "eval"),
        ("half_eval", nn.Sequential(nn.ReLU().eval(), nn.Tanh()), "mixed"),
    ],
)
@pytest.mark.parametrize("form", ["scripted", "pickled"])
def test_the_training_state_is_that_of_all_submodules(
    shelf: Shelf, name: str, module: nn.Module, expected: str, form: str
) -> None:
    assert facts_of(shelf, name, module, form).training == expected


@pytest.mark.parametrize("form", ["scripted", "pickled"])
def test_layers_have_their_class_their_tensors_and_their_constants(shelf: Shelf, form: str) -> None:
    module = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Embedding(9, 3), nn.BatchNorm2d(8))
    layers = {layer.name: layer for layer in facts_of(shelf, "three", module, form).layers}
    assert [layer.class_name for layer in layers.values()] == [
        "Sequential",
        "Conv2d",
        "Embedding",
        "BatchNorm2d",
    ]
    assert layers["0"].parameters[0] == NamedSizes("weight", "float32", (8, 2, 3, 3))
    assert dict(layers["0"].constants)["groups"] == 2
    assert layers["2"].buffers == (
        NamedSizes("running_mean", "float32", (8,)),
        NamedSizes("running_var", "float32", (8,)),
        NamedSizes("num_batches_tracked", "int64", ()),
    )


def test_an_exported_program_has_the_layers_that_its_parameters_name(shelf: Shelf) -> None:
    facts = collect_facts(loaded(shelf, "nested", nested(), "exported", torch.rand(2, 4)))
    assert facts.class_name == "ExportedProgram"
    assert facts.training == "as it was exported"
    assert [(layer.name, len(layer.parameters)) for layer in facts.layers] == [("0", 2), ("1.0", 2)]


def test_an_eager_model_has_output_sizes_in_its_table_and_is_left_as_it_was(shelf: Shelf) -> None:
    model = loaded(shelf, "encoder", encoder(), "pickled")
    before = {name: id(tensor) for name, tensor in model.module.named_parameters()}
    rows = layer_rows(model, Values((torch.rand(2, 3, 16, 16),), {}))
    assert [row.class_name for row in rows][:2] == ["Sequential", "Conv2d"]
    assert rows[1].output == "[2, 16, 8, 8]"
    assert rows[1].parameters == 16 * 3 * 9 + 16
    assert {name: id(tensor) for name, tensor in model.module.named_parameters()} == before
    assert not any(submodule._forward_hooks for submodule in model.module.modules())


def test_a_table_without_output_sizes_is_better_than_none(shelf: Shelf) -> None:
    model = loaded(shelf, "encoder", encoder(), "pickled")
    rows = layer_rows(model, Values((torch.rand(2, 4, 16, 16),), {}))
    assert [(row.depth, row.name, row.class_name) for row in rows[:2]] == [
        (0, "", "Sequential"),
        (1, "0", "Conv2d"),
    ]
    assert {row.output for row in rows} == {""}
    assert rows == layer_rows(model, None)


@pytest.mark.parametrize("form", ["scripted", "exported"])
def test_the_rows_of_other_forms_count_the_parameters_below_them(shelf: Shelf, form: str) -> None:
    model = loaded(shelf, "nested", nested(), form, torch.rand(2, 4))
    rows = layer_rows(model, Values((torch.rand(2, 4),), {}))
    counts = {row.name: (row.depth, row.parameters) for row in rows if row.parameters}
    assert counts == {"": (0, 23), "0": (1, 15), "1": (1, 8), "1.0": (2, 8)}


def test_views_of_one_storage_are_not_the_same_parameter() -> None:
    base = torch.zeros(4, 2)
    module = nn.Module()
    module.first, module.second = nn.Parameter(base[:2]), nn.Parameter(base[2:])
    module.register_buffer("empty", torch.zeros(0))
    module.register_buffer("also_empty", module.empty)
    assert shared_names(module) == []
