"""Exported programs, run from their JSON, return what torch.export returns for the same file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import nn
from torch.export import Dim

from composecli.files.pt2_layout import SCHEMA_MAJOR, ExportedProgram
from composecli.runtime.loading import load, load_whole, with_values
from composecli.runtime.model import Model
from composecli.runtime.pt2.nodes import Unsupported
from composecli.runtime.pt2.program import Program
from composecli.runtime.tensors import tensors_in
from tests.models import DictOutput, Tied, TwoInputs, TwoOutputs, encoder
from tests.unit.runtime.opening import open_request


class Reshaped(nn.Module):
    """Sizes are computed in the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        return x.reshape(batch, channels * 2, height // 2, width).flatten(2).transpose(1, 2)


class Stateful(nn.Module):
    """Writes to a buffer, and has a constant and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))
        self.table = torch.tensor([2.0, 0.0, 1.0])
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return self.fc(x) + self.table * self.count


class Splitting(nn.Module):
    """Ops that return several tensors or lists of them, and accept lists."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        one, two, three = x.chunk(3, -1)
        values, indices = torch.topk(self.norm(x), 2)
        return torch.cat([three, one], -1), {
            "top": values,
            "where": indices,
            "two": two.to(torch.float64),
        }


class Beside(nn.Module):
    """Takes a structure, and another input by name."""

    def forward(
        self, pair: tuple[torch.Tensor, dict[str, torch.Tensor]], *, scale: torch.Tensor
    ) -> torch.Tensor:
        return pair[0] * scale + pair[1]["b"]


def batch(*names: str) -> dict[str, Any]:
    return {name: {0: Dim("batch")} for name in names}


class Case(NamedTuple):
    """A module, the example that it is exported with, and which sizes are dynamic."""

    module: nn.Module
    arguments: tuple[Any, ...]
    dynamic: dict[str, Any] | None = None
    keywords: Mapping[str, Any] = {}


CASES = {
    "linear": Case(nn.Linear(4, 3), (torch.rand(2, 4),), batch("input")),
    "fixed": Case(nn.Linear(4, 3), (torch.rand(2, 4),)),
    "encoder": Case(encoder(), (torch.rand(2, 3, 16, 16),), batch("input")),
    "norm": Case(
        nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).eval(),
        (torch.rand(2, 3, 4, 4),),
        batch("input"),
    ),
    "training": Case(nn.BatchNorm1d(3), (torch.rand(4, 3),), batch("input")),
    "tied": Case(Tied(), (torch.rand(2, 5),)),
    "two outputs": Case(TwoOutputs(), (torch.rand(2, 10),)),
    "two inputs": Case(TwoInputs(), (torch.rand(2, 5), torch.rand(2, 5))),
    "dict": Case(DictOutput(), (torch.rand(2, 10),)),
    "reshaped": Case(
        Reshaped(),
        (torch.rand(2, 3, 4, 6),),
        {"x": {0: Dim("n"), 2: 2 * Dim("h", max=40), 3: Dim("w")}},
    ),
    "stateful": Case(Stateful(), (torch.rand(2, 3),), batch("x")),
    "splitting": Case(Splitting(), (torch.rand(2, 6),), batch("x")),
    "ranged": Case(nn.Linear(4, 3), (torch.rand(4, 4),), {"input": {0: Dim("n", min=3, max=9)}}),
    "attention": Case(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (torch.rand(2, 5, 8),)
    ),
    "lstm": Case(nn.LSTM(4, 3, batch_first=True), (torch.rand(2, 5, 4),)),
    "embedding": Case(nn.Embedding(9, 4), (torch.tensor([[1, 2], [3, 4]]),), batch("input")),
    "beside": Case(
        Beside(),
        ((torch.rand(2, 3), {"b": torch.rand(2, 3)}),),
        {"pair": ({0: Dim("n")}, {"b": {0: Dim("n")}}), "scale": None},
        {"scale": torch.rand(3)},
    ),
}


def outcome(model: Model, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
    """The structure and the values of the result of a call, or that it fails."""
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            result = model.module(*arguments, **keywords)
    except Exception:
        return "refused"
    tensors = tensors_in(result)
    return type(result).__name__, [(one.dtype, one.shape, one.tolist()) for one in tensors]


def resize(value: Any, axis: int, by: int) -> Any:
    """The same with another size along an axis, of each tensor that has it."""
    if isinstance(value, torch.Tensor):
        if axis >= value.dim() or value.shape[axis] + by < 0:
            return value
        sizes = list(value.shape)
        sizes[axis] += by
        return torch.ones(sizes, dtype=value.dtype)
    if isinstance(value, Mapping):
        return {key: resize(item, axis, by) for key, item in value.items()}
    return tuple(resize(item, axis, by) for item in value)


def export(case: Case, path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(
            case.module, case.arguments, dict(case.keywords), dynamic_shapes=case.dynamic
        )
        torch.export.save(program, path)


@pytest.mark.parametrize("name", CASES)
def test_a_program_does_what_torch_export_makes_of_it(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    path = tmp_path / "program.pt2"
    export(case, path)
    request = open_request(path, "exported")
    ours, theirs = with_values(load(request)), load_whole(request)
    assert isinstance(ours.module, Program)
    assert not isinstance(theirs.module, Program)
    assert ours.arguments == theirs.arguments
    parameters, expected_parameters = (
        dict(model.module.named_parameters()) for model in (ours, theirs)
    )
    assert parameters.keys() == expected_parameters.keys()
    accepted = 0
    for axis in range(4):
        for by in (0, 1, -1, 2, 40):
            call = resize(case.arguments, axis, by), resize(case.keywords, axis, by)
            expected = outcome(theirs, *call)
            assert outcome(ours, *call) == expected, (axis, by)
            accepted += expected != "refused"
    assert accepted
    calls = [
        ((), {}),
        ((*case.arguments, 3), case.keywords),
        (case.arguments, {**case.keywords, "none": 1}),
    ]
    assert [outcome(ours, *call) for call in calls] == ["refused"] * 3
    assert [outcome(theirs, *call) for call in calls[:2]] == ["refused"] * 2


class Chooses(nn.Module):
    """Has an op of higher order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


def test_a_program_that_only_torch_export_runs_is_loaded_by_it(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    export(Case(Chooses(), (torch.rand(2, 3),)), path)
    model = load(open_request(path, "exported"))
    assert "higher_order" in model.notes[0]
    assert model.weights is None
    assert outcome(model, (torch.ones(2, 3),), {}) == (
        "Tensor",
        [(torch.float32, torch.Size([2, 3]), [[2.0] * 3] * 2)],
    )


def test_another_version_of_the_schema_is_not_read() -> None:
    data = cast(ExportedProgram, {"schema_version": {"major": SCHEMA_MAJOR + 1}})
    with pytest.raises(Unsupported, match="another version of the schema"):
        Program(data, "cpu")
