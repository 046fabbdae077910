"""Building: the written module does what the models and bridges of the blueprint do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.blueprint import Blueprint, Branch, Feed, Merge, Parallel, Sequential, Stage
from composecli.core.bridge import Bridge, Cast, Flatten, Linear, Squeeze
from composecli.core.errors import CouldNotAttempt
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.runtime.bridge_steps import make_layers
from composecli.runtime.forward.run import run_blueprint
from composecli.runtime.joining.build import build, is_all_script
from composecli.runtime.loading import load, load_whole
from composecli.runtime.model import Model
from composecli.runtime.tensors import Maker, tensors_in
from composecli.workers.protocol import BuildRequest, Built
from tests.models import DictOutput, Shelf, Tied, TwoInputs, encoder
from tests.unit.runtime.opening import open_request

CALL = Call((Argument(TensorSpec("float32", (2, 10))),))
IMAGE = Call((Argument(TensorSpec("float32", (2, 3, 32, 32))),))


class Scaled(nn.Module):
    """Takes one of its inputs by name."""

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> torch.Tensor:
        return x * scale


class Dynamic(nn.Module):
    """Uses what TorchScript does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, "f" + "c")(x)


def sequence(bridge: Bridge = (), path: tuple[Any, ...] = ()) -> Sequential:
    return Sequential((Stage(0), Stage(1, (Feed(path, None, bridge),))))


def joined(path: Path, blueprint: Blueprint, models: list[Model], call: Call = CALL) -> Built:
    """Build a file, with seed 3."""
    opened = dict(enumerate(models))
    return build(BuildRequest(blueprint, call, str(path), 3), opened, Maker("cpu", 3, []))


def assert_same(path: Path, blueprint: Blueprint, models: list[Model], call: Call = CALL) -> None:
    """The file returns what the separate models return."""
    values = Maker("cpu", 5, []).call(call)
    layers = make_layers(blueprint, 3, "cpu")
    with torch.no_grad():
        expected = run_blueprint(blueprint, dict(enumerate(models)), values, layers).result
        actual = torch.jit.load(path)(*values.positional, **values.named)
    pairs = zip(tensors_in(expected), tensors_in(actual), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert tensors_in(expected)


def whole(shelf: Shelf, name: str, module: nn.Module, form: str, *example: torch.Tensor) -> Model:
    return load_whole(
        open_request(shelf.save(f"build_{name}", module, form, example), form, trusted=True)
    )


@pytest.mark.parametrize("form", ["scripted", "traced", "pickled", "exported"])
def test_models_of_every_kind_are_joined(shelf: Shelf, tmp_path: Path, form: str) -> None:
    models = [
        whole(shelf, "first", nn.Linear(10, 5), form, torch.rand(2, 10)),
        whole(shelf, "tied", Tied(), form, torch.rand(2, 5)),
    ]
    path = tmp_path / "joined.pt"
    built = joined(path, sequence(), models)
    assert_same(path, sequence(), models)
    assert not built.left_out
    assert len(built.notes) == (2 if form == "exported" else 0)
    assert is_all_script(sequence(), dict(enumerate(models))) == (form in ("scripted", "traced"))


@pytest.mark.parametrize(
    ("path", "bridge", "second"),
    [
        (("logits",), (), nn.Linear(5, 2)),
        (("features",), (Linear(1, 16, 5),), nn.Linear(5, 2)),
        (("features",), (Cast("float64"), Linear(1, 16, 5, "float64")), nn.Linear(5, 2).double()),
    ],
)
def test_one_of_several_outputs_passes_through_the_bridge(
    shelf: Shelf, tmp_path: Path, path: tuple[Any, ...], bridge: Bridge, second: nn.Module
) -> None:
    models = [
        whole(shelf, "dict", DictOutput(), "scripted"),
        whole(shelf, f"second_{len(bridge)}", second, "scripted"),
    ]
    blueprint = sequence(bridge, path)
    joined(tmp_path / "joined.pt", blueprint, models)
    assert_same(tmp_path / "joined.pt", blueprint, models)


def test_sizes_are_changed_by_the_bridge(shelf: Shelf, tmp_path: Path) -> None:
    body = nn.Sequential(encoder(), nn.AdaptiveAvgPool2d(1))
    models = [
        whole(shelf, "pooled", body, "scripted"),
        whole(shelf, "head", nn.Linear(64, 2), "scripted"),
    ]
    bridges: list[Bridge] = [(Flatten(1),), (Squeeze(3), Squeeze(2))]
    for number, bridge in enumerate(bridges):
        path = tmp_path / f"joined_{number}.pt"
        joined(path, sequence(bridge), models, IMAGE)
        assert_same(path, sequence(bridge), models, IMAGE)


@pytest.mark.parametrize("merge", list(Merge))
def test_parallel_models_are_merged(shelf: Shelf, tmp_path: Path, merge: Merge) -> None:
    models = [
        whole(shelf, "branch_one", nn.Linear(10, 5), "scripted"),
        whole(shelf, "dict", DictOutput(), "scripted"),
    ]
    blueprint = Parallel((Branch(0), Branch(1, ("logits",))), merge)
    joined(tmp_path / "joined.pt", blueprint, models)
    assert_same(tmp_path / "joined.pt", blueprint, models)


def test_a_model_that_is_used_twice_is_stored_once(shelf: Shelf, tmp_path: Path) -> None:
    models = [whole(shelf, "square", nn.Linear(10, 10), "scripted")]
    blueprint = Sequential((Stage(0), Stage(0, (Feed(),))))
    joined(tmp_path / "joined.pt", blueprint, models)
    assert_same(tmp_path / "joined.pt", blueprint, models)
    names = [name for name, _ in torch.jit.load(tmp_path / "joined.pt").named_parameters()]
    assert names == ["part_0.weight", "part_0.bias"]


def test_records_of_the_parts_are_left_out_and_named(shelf: Shelf, tmp_path: Path) -> None:
    paths = [
        shelf.save("build_first", nn.Linear(10, 5)),
        shelf.save("build_tied", Tied()),
    ]
    models = [load(open_request(path, "scripted")) for path in paths]
    built = joined(tmp_path / "joined.pt", sequence((Linear(1, 5, 5),)), models)
    # The tied weight is one record: two of the first model, three of the second.
    assert sorted(record.model for record in built.left_out) == [0, 0, 1, 1, 1]
    for left_out in built.left_out:
        with Archive(Path(paths[left_out.model])) as source:
            assert left_out.source in source.names
    with Archive(tmp_path / "joined.pt") as archive:
        records = {name for name in archive.names if name.startswith("data/")}
        left_out_names = {left_out.record for left_out in built.left_out}
        assert all(archive.size(name) == 0 for name in left_out_names)
        # Only the generated layer is stored.
        assert len(records - left_out_names) == 2
    assert not any(tensor.is_meta for model in models for tensor in model.module.parameters())


def test_a_model_that_cannot_be_scripted_is_traced_with_a_note(
    shelf: Shelf, tmp_path: Path
) -> None:
    models = [
        whole(shelf, "dynamic", Dynamic(), "pickled"),
        whole(shelf, "after", nn.Linear(5, 2), "pickled"),
    ]
    built = joined(tmp_path / "joined.pt", sequence(), models)
    assert_same(tmp_path / "joined.pt", sequence(), models)
    (note,) = built.notes
    assert note.startswith(f"{models[0].name} was traced: it could not be scripted (")
    assert note.endswith("): one path through its code is kept")


def test_a_bare_recurrent_layer_is_traced_because_its_forward_is_overloaded(
    shelf: Shelf, tmp_path: Path
) -> None:
    models = [
        whole(shelf, "bare_lstm", nn.LSTM(10, 5), "pickled"),
        whole(shelf, "after", nn.Linear(5, 2), "pickled"),
    ]
    built = joined(tmp_path / "joined.pt", sequence(path=(0,)), models)
    assert_same(tmp_path / "joined.pt", sequence(path=(0,)), models)
    (note,) = built.notes
    assert note.startswith(f"{models[0].name} was traced: its forward is overloaded")


def test_an_exported_program_with_named_arguments_is_traced(tmp_path: Path) -> None:
    path = tmp_path / "scaled.pt2"
    program = torch.export.export(Scaled(), (torch.rand(2, 10),), {"scale": torch.rand(10)})
    torch.export.save(program, path)
    model = load_whole(open_request(path, "exported"))
    call = Call((*CALL.arguments, Argument(TensorSpec("float32", (10,)), "scale")))
    joined(tmp_path / "joined.pt", Sequential((Stage(0),)), [model], call)
    assert_same(tmp_path / "joined.pt", Sequential((Stage(0),)), [model], call)


def test_a_blueprint_that_torch_cannot_compile_is_a_problem(shelf: Shelf, tmp_path: Path) -> None:
    models = [
        whole(shelf, "first", nn.Linear(10, 5), "scripted"),
        whole(shelf, "two_inputs", TwoInputs(), "scripted"),
    ]
    with pytest.raises(CouldNotAttempt) as raised:
        joined(tmp_path / "joined.pt", sequence(), models)
    problem = raised.value.problem
    assert problem.rule == Rule.COULD_NOT_BUILD
    assert problem.where == f"{models[0].name} and {models[1].name}"


@pytest.mark.parametrize(
    ("flags", "expected"), [((True, True), True), ((True, False), False), ((False, False), False)]
)
def test_the_joined_module_is_in_train_mode_if_all_its_parts_are(
    shelf: Shelf, tmp_path: Path, flags: tuple[bool, bool], expected: bool
) -> None:
    models = [
        whole(shelf, "first", nn.Linear(10, 5), "scripted"),
        whole(shelf, "tied", Tied(), "scripted"),
    ]
    for model, training in zip(models, flags, strict=True):
        model.module.train(training)
    joined(tmp_path / "joined.pt", sequence(), models)
    loaded = torch.jit.load(tmp_path / "joined.pt")
    assert loaded.training is expected
    assert (loaded.part_0.training, loaded.part_1.training) == flags
