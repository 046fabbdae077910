"""torch.export archives: run from their JSON without their tensors, or loaded by torch.export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt
from composecli.core.rules import Rule
from composecli.runtime.loading import load, load_whole, with_values
from composecli.runtime.pt2.program import Program
from composecli.workers.protocol import Training
from tests.models import Counter, DictOutput, Shelf, Tied, rewrite
from tests.unit.runtime.opening import open_request, same_state, state


class Chooses(nn.Module):
    """Has an op of higher order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


class Nested(nn.Module):
    """Its tensors are in submodules of submodules, and one is a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval())
        self.table = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) * self.table


def test_tensors_have_the_names_that_they_had_in_the_module(shelf: Shelf) -> None:
    path = shelf.save("exported_nested", Nested(), "exported", (torch.rand(2, 3),))
    model = load(open_request(path, "exported"))
    assert isinstance(model.module, Program)
    assert "body.0.0.weight" in dict(model.module.named_parameters())
    assert "body.0.1.running_mean" in dict(model.module.named_buffers())
    expected = {name: tensor for name, tensor in Nested().state_dict().items() if tensor.numel()}
    assert {n: t.shape for n, t in expected.items()}.items() <= {
        n: t.shape for n, t in model.module.state_dict().items()
    }.items()


@pytest.mark.parametrize("read", [load, load_whole])
def test_a_shared_parameter_stays_one_parameter(shelf: Shelf, read: Any) -> None:
    path = shelf.save("exported_tied", Tied(), "exported", (torch.rand(2, 5),))
    module = with_values(read(open_request(path, "exported"))).module
    parameters = dict(module.named_parameters(remove_duplicate=False))
    assert parameters["one.weight"] is parameters["other.weight"]
    assert parameters["one.bias"] is not parameters["other.bias"]


def test_parameters_keep_whether_they_need_a_gradient(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    path = tmp_path / "frozen_bias.pt2"
    torch.export.save(torch.export.export(module, (torch.rand(2, 3),)), path)
    parameters = dict(load(open_request(path, "exported")).module.named_parameters())
    assert parameters["weight"].requires_grad
    assert not parameters["bias"].requires_grad


@pytest.mark.parametrize("dtype", [torch.uint16, torch.bfloat16, torch.float8_e4m3fn])
def test_buffers_of_every_dtype_are_read_on_demand(tmp_path: Path, dtype: torch.dtype) -> None:
    module = nn.Linear(3, 2)
    module.register_buffer("codes", torch.tensor([1.0, 2.0, 3.0]).to(dtype))
    path = tmp_path / "codes.pt2"
    torch.export.save(torch.export.export(module, (torch.rand(2, 3),)), path)
    request = open_request(path, "exported")
    model = with_values(load(request))
    assert isinstance(model.module, Program)
    assert model.module.codes.dtype is dtype
    assert same_state(state(model), state(load_whole(request)))


def test_an_op_of_higher_order_is_loaded_by_torch_export(tmp_path: Path) -> None:
    path = tmp_path / "chooses.pt2"
    torch.export.save(torch.export.export(Chooses(), (torch.rand(2, 3),)), path)
    model = load(open_request(path, "exported"))
    assert not isinstance(model.module, Program)
    assert model.notes[0].startswith("all its tensors were read: it holds the op torch.ops.higher")


def test_the_mode_of_an_exported_program_cannot_be_set(shelf: Shelf) -> None:
    path = shelf.save("exported_dict", DictOutput(), "exported", (torch.rand(2, 10),))
    note = "an exported program stays in the mode it was exported in"
    for read in (load, load_whole):
        assert not read(open_request(path, "exported")).notes
        for training in (Training.EVAL, Training.TRAIN):
            assert read(open_request(path, "exported", training=training)).notes == (note,)


def test_state_that_a_forward_changes_is_a_buffer(shelf: Shelf) -> None:
    path = shelf.save("exported_counter", Counter(), "exported", (torch.rand(2, 10),))
    module = with_values(load(open_request(path, "exported"))).module
    before = module.seen.clone()
    module(torch.rand(2, 10))
    assert torch.equal(module.seen, before + 1)


def _with_library_output(program: bytes) -> bytes:
    """The JSON of a program whose output is an object of a library, in place of a dict."""
    data = json.loads(program)
    signature = data["graph_module"]["module_call_graph"][0]["signature"]
    signature["out_spec"] = signature["out_spec"].replace("builtins.dict", "absent.kinds.Output")
    return json.dumps(data).encode()


def test_objects_of_a_library_need_trust_and_the_library(shelf: Shelf, tmp_path: Path) -> None:
    source = shelf.save("exported_dict", DictOutput(), "exported", (torch.rand(2, 10),))
    path = tmp_path / "library.pt2"
    rewrite(Path(source), path, "models/", _with_library_output)
    with pytest.raises(CouldNotAttempt) as raised:
        load(open_request(path, "exported"))
    problem = raised.value.problem
    assert problem.rule == Rule.PACKAGE_MISSING
    assert problem.notes == ("it names absent.kinds.Output",)
    remedies = [remedy.text for remedy in problem.remedies]
    assert remedies == ["--import absent.kinds", f"--trust {path}"]
    with pytest.raises(CouldNotAttempt) as raised:
        load(open_request(path, "exported", trusted=True))
    problem = raised.value.problem
    assert problem.rule == Rule.PACKAGE_MISSING
    assert problem.notes == ("No module named 'absent'",)
