"""Programs of torch.export, run as their archives say: what torch.export makes of the same file, for the same input."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from composecli.core.model_ref import FileReference, ModelKind
from composecli.runtime.loading import load, load_whole, with_values
from composecli.runtime.model import Model
from composecli.runtime.pt2.program import Program
from composecli.runtime.tensors import tensors_in
from composecli.workers.protocol import OpenRequest, Training
from tests.models import DictOutput, Tied, TwoInputs, TwoOutputs, encoder


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
    """Ops that give several tensors, lists of them, and take lists."""

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


CASES: dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any], dict[str, Any] | None]] = {
    "linear": (nn.Linear(4, 3), (torch.rand(2, 4),), {}, batch("input")),
    "fixed": (nn.Linear(4, 3), (torch.rand(2, 4),), {}, None),
    "encoder": (encoder(), (torch.rand(2, 3, 16, 16),), {}, batch("input")),
    "norm": (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).eval(), (torch.rand(2, 3, 4, 4),), {}, batch("input")),
    "training": (nn.BatchNorm1d(3), (torch.rand(4, 3),), {}, batch("input")),
    "tied": (Tied(), (torch.rand(2, 5),), {}, None),
    "two outputs": (TwoOutputs(), (torch.rand(2, 10),), {}, None),
    "two inputs": (TwoInputs(), (torch.rand(2, 5), torch.rand(2, 5)), {}, None),
    "dict": (DictOutput(), (torch.rand(2, 10),), {}, None),
    "reshaped": (Reshaped(), (torch.rand(2, 3, 4, 6),), {}, {"x": {0: Dim("n"), 2: 2 * Dim("h", max=40), 3: Dim("w")}}),
    "stateful": (Stateful(), (torch.rand(2, 3),), {}, batch("x")),
    "splitting": (Splitting(), (torch.rand(2, 6),), {}, batch("x")),
    "ranged": (nn.Linear(4, 3), (torch.rand(4, 4),), {}, {"input": {0: Dim("n", min=3, max=9)}}),
    "attention": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (torch.rand(2, 5, 8),), {}, None),
    "lstm": (nn.LSTM(4, 3, batch_first=True), (torch.rand(2, 5, 4),), {}, None),
    "embedding": (nn.Embedding(9, 4), (torch.tensor([[1, 2], [3, 4]]),), {}, batch("input")),
    "beside": (
        Beside(), ((torch.rand(2, 3), {"b": torch.rand(2, 3)}),), {"scale": torch.rand(3)},
        {"pair": ({0: Dim("n")}, {"b": {0: Dim("n")}}), "scale": None},
    ),
}  # fmt: skip


def outcome(model: Model, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """What comes of a call: the structure and the values of the result, or that it is refused."""
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            result = model.module(*arguments, **keywords)
    except Exception:
        return "refused"
    return type(result).__name__, [
        (tensor.dtype, tensor.shape, tensor.tolist()) for tensor in tensors_in(result)
    ]


def changed(value: Any, axis: int, by: int) -> Any:
    """The same with another size along an axis, of each tensor that has it."""
    if isinstance(value, torch.Tensor):
        if axis >= value.dim() or value.shape[axis] + by < 0:
            return value
        sizes = list(value.shape)
        sizes[axis] += by
        return torch.ones(sizes, dtype=value.dtype)
    if isinstance(value, dict):
        return {key: changed(item, axis, by) for key, item in value.items()}
    return tuple(changed(item, axis, by) for item in value)


@pytest.mark.parametrize("name", CASES)
def test_a_program_does_what_torch_export_makes_of_it(tmp_path: Path, name: str) -> None:
    module, arguments, keywords, dynamic = CASES[name]
    path = tmp_path / "program.pt2"
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(
            torch.export.export(module, arguments, keywords, dynamic_shapes=dynamic), path
        )
    request = OpenRequest(
        FileReference(str(path)), ModelKind.EXPORTED, "cpu", Training.SAVED, trusted=False, key=None
    )
    ours, theirs = with_values(load(request)), load_whole(request)
    assert isinstance(ours.module, Program)
    assert not isinstance(theirs.module, Program)
    assert ours.arguments == theirs.arguments
    assert (
        dict(ours.module.named_parameters()).keys() == dict(theirs.module.named_parameters()).keys()
    )
    taken = 0
    for axis in range(4):
        for by in (0, 1, -1, 2, 40):
            call = changed(arguments, axis, by), changed(keywords, axis, by)
            expected = outcome(theirs, *call)
            assert outcome(ours, *call) == expected, (axis, by)
            taken += expected != "refused"
    assert taken
    assert outcome(ours, (), {}) == outcome(theirs, (), {}) == "refused"
    assert (
        outcome(ours, (*arguments, 3), keywords)
        == outcome(theirs, (*arguments, 3), keywords)
        == "refused"
    )
    assert outcome(ours, arguments, {**keywords, "none": 1}) == "refused"


class Chooses(nn.Module):
    """Holds an op of higher order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


def test_what_is_not_run_here_is_loaded_by_torch_export_and_named(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(Chooses(), (torch.rand(2, 3),)), path)
    request = OpenRequest(
        FileReference(str(path)), ModelKind.EXPORTED, "cpu", Training.SAVED, trusted=False, key=None
    )
    model = load(request)
    assert "higher_order" in model.notes[0]
    assert model.weights is None
    assert outcome(model, (torch.ones(2, 3),), {}) == (
        "Tensor",
        [(torch.float32, torch.Size([2, 3]), [[2.0] * 3] * 2)],
    )
