"""Sizes that follow the values of the input are unknown, and so is a seam that rests on them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.commands.running import Composecli, Installed
from tests.models import Shelf


class Exit(nn.Module):
    """Takes one of two exits."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 4)
        self.b = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) > 0:
            return self.a(x)
        return self.b(x)


class Structure(nn.Module):
    """Returns one or two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> list[Tensor]:
        if bool((x > 0).any()):
            return [self.fc(x)]
        return [self.fc(x), x]


class Detector(nn.Module):
    """Keeps the rows with a high score, of 4 numbers each."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)[x[:, 0] > 0]


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc(x)).nonzero()


class Listed(nn.Module):
    """Looks at the values as Python numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.tolist()[0][0] > 0:
            return self.fc(x)
        return torch.cat([self.fc(x), x], 1)


class Checked(nn.Module):
    """Reads values, and its sizes do not follow them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        if bool(torch.isnan(x).any()):
            raise ValueError("not a number")
        return self.fc(x)


@pytest.mark.parametrize(
    ("module", "form", "contract"),
    [
        (Exit(), "scripted", "float32[N, 8] -> float32[N, ?]"),
        (Detector(), "scripted", "float32[N, 8] -> float32[?, 4]"),
        (Positions(), "scripted", "float32[N, 8] -> int64[?, 2]"),
        (Checked(), "scripted", "float32[N, 8] -> float32[N, 4]"),
        (Structure(), "scripted", "float32[N, 8] -> [float32[?, ?]]"),
        (Listed(), "pickled", "float32[N, 8] -> float32[N, ?]"),
        (Detector(), "pickled", "float32[N, 8] -> float32[?, 4]"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_sizes_that_follow_values_are_unknown(
    module: nn.Module, form: str, contract: str, composecli: Composecli, shelf: Shelf
) -> None:
    path = shelf.save(f"by_values_{type(module).__name__}", module, form)
    inspected = composecli.json("inspect", path, "--trust", path).json["model"]
    assert inspected["contract"]["text"] == contract
    followed = [dim for dim in inspected["contract"]["unknown"] if "follows the values" in dim]
    assert bool(followed) == ("?" in contract)


@pytest.mark.parametrize("width", [4, 6])
def test_seam_on_such_a_size_is_unknown(width: int, installed: Installed, shelf: Shelf) -> None:
    a = shelf.save("by_values_Exit", Exit())
    b = shelf.save(f"of_{width}", nn.Linear(width, 2))
    checked = installed.json("check", a, b)
    assert checked.code == 3
    assert checked.codes == ["CC209"]
    assert checked.json["seams"][0]["findings"][0]["fix"] is None
    assert installed("join", a, b, "-o", "joined.pt", "--bridge", "linear").code == 3


def test_any_number_of_detections_is_accepted(installed: Installed, shelf: Shelf) -> None:
    a = shelf.save("by_values_Detector", Detector())
    b = shelf.save("of_4", nn.Linear(4, 2))
    assert installed("check", a, b).code == 0


def test_it_is_told_behind_another_model(composecli: Composecli, shelf: Shelf) -> None:
    a = shelf.save("by_values_Detector", Detector())
    b = shelf.save("of_4", nn.Linear(4, 2))
    fixed = shelf.save("two_rows", TwoRows())
    assert composecli("check", a, b, fixed).code == 3


class TwoRows(nn.Module):
    """Accepts exactly two rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight @ x


def test_merged_outputs_of_such_a_size_are_unknown(composecli: Composecli, shelf: Shelf) -> None:
    a = shelf.save("by_values_Exit", Exit())
    b = shelf.save("from_8_to_6", nn.Linear(8, 6))
    checked = composecli.json("check", a, b, "--mode", "parallel", "--merge", "add")
    assert checked.code == 3
    assert "CC209" in checked.codes
    assert composecli("check", a, b, "--mode", "parallel", "--merge", "cat").code == 0
