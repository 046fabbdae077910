"""Reference runs of blueprints: one model after the other, or in parallel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.blueprint import (
    Blueprint,
    Branch,
    Feed,
    Merge,
    Parallel,
    Sequential,
    Stage,
    single_model,
)
from composecli.core.bridge import Flatten
from composecli.core.model_ref import FileReference, ModelKind
from composecli.runtime.forward.run import (
    BlueprintRun,
    ModelFailed,
    get_value,
    merge_results,
    run_blueprint,
)
from composecli.runtime.loading import load_whole
from composecli.runtime.model import Model
from composecli.runtime.tensors import Values
from composecli.workers.protocol import OpenRequest, Training
from tests.models import DictOutput, Shelf, TwoInputs, TwoOutputs


def loaded(shelf: Shelf, name: str, module: nn.Module) -> Model:
    reference = FileReference(shelf.save(f"run_{name}", module))
    kind = ModelKind.TORCHSCRIPT
    return load_whole(OpenRequest(reference, kind, "cpu", Training.SAVED, True, None))


def run(blueprint: Blueprint, models: list[Model], *inputs: torch.Tensor) -> BlueprintRun:
    with torch.no_grad():
        return run_blueprint(blueprint, dict(enumerate(models)), Values(inputs, {}), {})


def test_a_single_model_is_called_with_the_values(shelf: Shelf) -> None:
    model = loaded(shelf, "two_inputs", TwoInputs())
    x, y = torch.rand(2, 5), torch.rand(2, 5)
    done = run_blueprint(single_model(3), {3: model}, Values((x,), {"y": y}), {})
    assert torch.equal(done.result, model.module(x, y))
    assert done.inputs[0].flat() == [x, y]


def test_a_stage_gets_parts_of_the_previous_result_by_position_and_by_name(shelf: Shelf) -> None:
    models = [loaded(shelf, "two_out", TwoOutputs()), loaded(shelf, "two_inputs", TwoInputs())]
    x = torch.rand(2, 10)
    stage = Stage(1, (Feed((1,)), Feed((0,), "y")))
    done = run(Sequential((Stage(0), stage)), models, x)
    one, other = models[0].module(x)
    assert torch.equal(done.result, models[1].module(other, one))
    assert list(done.inputs[1].named) == ["y"]


def test_bridges_are_applied_between_stages(shelf: Shelf) -> None:
    models = [loaded(shelf, "relu", nn.ReLU()), loaded(shelf, "linear_12", nn.Linear(12, 2))]
    stage = Stage(1, (Feed(bridge=(Flatten(1),)),))
    assert run(Sequential((Stage(0), stage)), models, torch.rand(2, 3, 4)).result.shape == (2, 2)


@pytest.mark.parametrize(
    ("merge", "sizes"),
    [(Merge.CAT, (2, 10)), (Merge.STACK, (2, 2, 5)), (Merge.ADD, (2, 5)), (Merge.MEAN, (2, 5))],
)
def test_parallel_results_are_merged(shelf: Shelf, merge: Merge, sizes: tuple[int, ...]) -> None:
    models = [loaded(shelf, "linear", nn.Linear(10, 5)), loaded(shelf, "dict", DictOutput())]
    branches = (Branch(0), Branch(1, ("logits",)))
    done = run(Parallel(branches, merge, 1), models, torch.rand(2, 10))
    assert done.result.shape == sizes
    assert len(done.results) == 3


def test_merges_compute_what_they_are_called() -> None:
    parts = [torch.ones(2), 3 * torch.ones(2)]
    assert merge_results(parts, Merge.ADD, 0).tolist() == [4, 4]
    assert merge_results(parts, Merge.MEAN, 0).tolist() == [2, 2]
    assert merge_results(parts, Merge.CAT, 0).tolist() == [1, 1, 3, 3]
    assert merge_results(parts, Merge.STACK, 0).tolist() == [[1, 1], [3, 3]]
    assert merge_results(parts, Merge.TUPLE, 0) == tuple(parts)


@pytest.mark.parametrize("merge", [Merge.ADD, Merge.MEAN])
def test_adding_does_not_broadcast(merge: Merge) -> None:
    with pytest.raises(ValueError, match=r"sizes differ: \[2, 1\], \[2, 5\]"):
        merge_results([torch.ones(2, 1), torch.ones(2, 5)], merge, 1)


def failure(blueprint: Blueprint, models: list[Model], x: torch.Tensor) -> ModelFailed:
    with pytest.raises(ModelFailed) as raised:
        run(blueprint, models, x)
    return raised.value


def test_a_failure_has_the_number_of_the_model_and_the_run_up_to_it(shelf: Shelf) -> None:
    models = [loaded(shelf, "linear", nn.Linear(10, 5)), loaded(shelf, "four", nn.Linear(4, 2))]
    blueprint = Sequential((Stage(0), Stage(1, (Feed(),))))
    first = failure(blueprint, models, torch.rand(2, 9))
    second = failure(blueprint, models, torch.rand(2, 10))
    assert (first.number, len(first.run.inputs), len(first.run.results)) == (0, 1, 0)
    assert (second.number, len(second.run.inputs), len(second.run.results)) == (1, 2, 1)
    assert isinstance(second.error, RuntimeError)


def test_a_failing_feed_or_merge_is_told_from_a_failing_model(shelf: Shelf) -> None:
    models = [loaded(shelf, "linear", nn.Linear(10, 5)), loaded(shelf, "to_two", nn.Linear(10, 2))]
    missing = Sequential((Stage(0), Stage(1, (Feed(("logits",)),))))
    in_feed = failure(missing, models, torch.rand(2, 10))
    assert (in_feed.number, len(in_feed.run.inputs)) == (1, 1)
    in_merge = failure(Parallel((Branch(0), Branch(1)), Merge.ADD), models, torch.rand(2, 10))
    assert (in_merge.number, len(in_merge.run.inputs)) == (2, 2)


def test_a_model_that_ends_the_process_only_fails() -> None:
    class Leaving(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise SystemExit(3)

    request = OpenRequest(FileReference("x"), ModelKind.PICKLED, "cpu", Training.SAVED, True, None)
    model = Model(Leaving(), request, (), {})
    assert isinstance(failure(single_model(0), [model], torch.rand(1)).error, SystemExit)


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        (5, (), 5),
        ([1, (2, 3)], (1, 0), 2),
        ({"a": {"b": 4}}, ("a", "b"), 4),
        ({1: "one"}, ("1",), "one"),
        ({1: "a number", "1": "a text"}, ("1",), "a text"),
    ],
)
def test_a_part_of_a_result_is_found_by_its_path(
    value: Any, path: tuple[int | str, ...], expected: Any
) -> None:
    assert get_value(value, path) == expected


@pytest.mark.parametrize(("value", "path"), [(5, (0,)), ([1], ("a",)), ({"a": 1}, ("b",))])
def test_a_path_that_leads_nowhere_is_an_error(value: Any, path: tuple[int | str, ...]) -> None:
    with pytest.raises(KeyError):
        get_value(value, path)
