"""Models with an axis as long as several others together: the contract has the sum of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from composecli import inspect
from tests.commands.running import Composecli, Installed
from tests.models import Shelf
from tests.zoo.judge import judge


class PooledSides(nn.Module):
    """Averages an image over each side, and reads both results as rows of a width."""

    def __init__(self, width: int, channels: int = 0) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, channels, 3, padding=1) if channels else nn.Identity()
        self.head, self.width = nn.Linear(width, 5), width

    def forward(self, x: Tensor) -> Tensor:
        y = self.image(x)
        sides = torch.cat([y.mean(2), y.mean(3)], 2)
        return self.head(sides.reshape(-1, self.width))


class SidesAtOnce(PooledSides):
    """Applies the layer to both sides of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.image(x)
        return self.head(torch.cat([y.mean(2), y.mean(3)], 2))


class FlatSides(PooledSides):
    """Flattens both sides of all channels."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.image(x)
        return self.head(torch.cat([y.mean(2), y.mean(3)], 2).flatten(1))


class SidesWithPositions(nn.Module):
    """Adds a table of positions to both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, 1, 24))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(2), x.mean(3)], 2) + self.positions


class PaddedByASize(nn.Module):
    """Makes each row longer by the number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(30, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head(functional.pad(y, [0, y.size(2)]))


class Padded(nn.Module):
    """Flattens an image that the layer before it makes larger."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=2), nn.Linear(400, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


class ClassToken(nn.Module):
    """Puts a token of its own before the others, and reads all of them as rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.token, self.head, self.width = (
            nn.Parameter(torch.zeros(1, 1, 8)),
            nn.Linear(width, 3),
            width,
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        first = self.token.expand(x.size(0), 1, 8)
        return self.head(torch.cat([first, tokens], 1).reshape(-1, self.width))


MODULES: dict[str, tuple[nn.Module, str]] = {
    "rows_of_sides": (
        PooledSides(24, 4),
        "float32[N, 3, H, W] where N*(H + W) % 6 == 0 -> float32[N*(H + W)//6, 5]",
    ),
    "sides_at_once": (
        SidesAtOnce(24, 4),
        "float32[N, 3, H, W] where H + W == 24 -> float32[N, 4, 5]",
    ),
    "flat_sides": (FlatSides(96, 4), "float32[N, 3, H, W] where H + W == 24 -> float32[N, 5]"),
    "flat_sides_of_channels": (
        FlatSides(96),
        "float32[N, C, H, W] where C*(H + W) == 96 -> float32[N, 5]",
    ),
    "sides_with_positions": (
        SidesWithPositions(),
        "float32[N, C, H, W] where H + W == 24 -> float32[N, C, 24]",
    ),
    "padded_by_a_size": (
        PaddedByASize(),
        "float32[N, 3, H, W] where H + W == 30 -> float32[N, 4, H, 5]",
    ),
    "padded": (
        Padded(),
        "float32[N, 3, H, W] where (H + 2)*(W + 2) == 100 -> float32[N, 3]",
    ),
    "class_token": (
        ClassToken(40),
        (
            "float32[N, 3, H>=4, W>=4] where N*((H//4)*(W//4) + 1) % 5 == 0"
            " -> float32[N*((H//4)*(W//4) + 1)//5, 3]"
        ),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_sum_of_sizes_is_related_to_what_takes_it(shelf: Shelf, name: str) -> None:
    module, contract = MODULES[name]
    path = shelf.save(f"summed_{name}", module.eval())
    found = inspect(path).model.contract
    assert str(found) == contract
    assert found is not None
    judgement = judge(found, torch.jit.load(path), module)
    assert judgement.wrong == ()
    assert judgement.open == ()


class PaddedRows(nn.Module):
    """Reads rows of an image that is padded on one side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.pad(self.conv(x), [1, 2]).reshape(-1, 8))


def test_sides_that_each_take_any_size_beside_an_even_one_are_related(
    composecli: Composecli, shelf: Shelf
) -> None:
    path = shelf.save("padded_rows", PaddedRows())
    contract = composecli.json("inspect", path, "--input", "1,3,16,33").json["model"]["contract"]
    assert contract["where"] == ["N*(H - 2)*(W + 1) % 2 == 0"]


def test_a_pair_holds_where_the_sum_of_both_sides_fits(
    composecli: Composecli, installed: Installed, shelf: Shelf
) -> None:
    given = shelf.save("halved_image", nn.Conv2d(3, 3, 2, 2))
    taken = shelf.save("summed_sides_at_once", MODULES["sides_at_once"][0].eval())
    checked = composecli.json("check", given, taken)
    (seam,) = checked.json["seams"]
    assert (checked.code, seam["holds"]) == (0, "sometimes")
    assert seam["when"] == ["24<=H<=25", "24<=W<=25"]
    contract = installed("inspect", taken).out
    assert "float32[N, 3, H, W] where H + W == 24" in contract


class Endless(nn.Module):
    """Asks a view for rows whose width is a large prime."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) % 2 == 1:
            return x.view(-1, 999999999999999989)
        return x * 2


def test_a_view_of_rows_that_no_memory_holds_is_no_relation(
    installed: Installed, shelf: Shelf
) -> None:
    ran = installed.json("inspect", shelf.save("rows_of_a_prime", Endless()), "--input", "2,3,8")
    assert ran.code in (0, 3)
    assert ran.json["model"]["contract"]["where"] == []
