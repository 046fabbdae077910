"""A view behind layers that change sizes: the contract says which products of sizes fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from composecli import inspect, options
from composecli.core.contract import Contract
from composecli.core.dims import admits, as_free
from composecli.core.relations import all_hold
from tests.commands.running import Installed
from tests.models import Shelf
from tests.zoo.judge import judge


class Viewed(nn.Module):
    """Reads the result of a layer as rows of a width, whatever its sizes."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.width = layer, width
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).reshape(-1, self.width))


class OfAllSamples(nn.Module):
    """Averages a batch of waves to one, so that only their length is left."""

    def __init__(self) -> None:
        super().__init__()
        self.wave = nn.Conv1d(3, 8, 4, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.wave(x.mean(0, keepdim=True))


class Joined(nn.Module):
    """Reads rows from two waves in one tensor, one behind the other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.one, self.other = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(3, 8, 3, padding=1)
        self.head, self.dim = nn.Linear(96, 4), dim

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        joined = torch.cat([self.one(x), self.other(y)], self.dim)
        return self.head(joined.reshape(-1, 96))


class Beside(nn.Module):
    """Adds the mean of the rows to each step of another input."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = Viewed(nn.Conv1d(3, 8, 3, padding=1), 96)
        self.steps = nn.Linear(5, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.rows(x).mean(0) + self.steps(y)


POOLED = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2))
STRIDED = nn.Conv2d(3, 6, 5, stride=3)
WAVE = nn.Conv1d(3, 8, 5, stride=2)
DOUBLED = nn.Upsample(scale_factor=2.0)
ROUNDED_UP = nn.Conv2d(1, 4, 3, stride=2, padding=1)
NETWORKS = {
    "pooled": (Viewed(POOLED, 2048), "3, H>=2, W>=2] where N*(H//2)*(W//2) % 256 == 0"),
    "one_row": (
        Viewed(POOLED, 16384),
        "3, H>=2, W>=2] where N*(H//2)*(W//2) % 2048 == 0 -> float32[N*(H//2)*(W//2)//2048, 4]",
    ),
    "one_axis": (Viewed(OfAllSamples(), 96), "3, L>=4] where (L//2 - 1) % 12 == 0"),
    "strided": (
        Viewed(STRIDED, 96),
        "3, H>=5, W>=5] where N*((H + 1)//3 - 1)*((W + 1)//3 - 1) % 16 == 0",
    ),
    "wave": (Viewed(WAVE, 96), "3, L>=5] where N*(ceil(L/2) - 2) % 12 == 0"),
    "doubled": (
        Viewed(nn.Sequential(WAVE, DOUBLED), 96),
        "3, L>=5] where N*(ceil(L/2) - 2) % 6 == 0",
    ),
    "rounded_up": (Viewed(ROUNDED_UP, 64), "1, H, W] where N*ceil(H/2)*ceil(W/2) % 16 == 0"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_view_behind_layers_takes_products_of_their_sizes(shelf: Shelf, name: str) -> None:
    module, taken = NETWORKS[name]
    path = shelf.save(f"viewed_{name}", module.eval())
    found = inspect(path).model.contract
    assert found is not None
    assert str(found).startswith(f"float32[N, {taken}")
    judgement = judge(found, torch.jit.load(path), module)
    assert judgement.wrong == ()
    assert judgement.open == ()


class Unshuffled(nn.Module):
    """Moves squares of pixels to channels, and reads rows of them."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.squares = nn.Conv2d(3, 16, 3, padding=1), nn.PixelUnshuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.squares(self.image(x)).reshape(-1, 96)


class TwoStrides(nn.Module):
    """Puts a wave and every other step of it into one."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Conv1d(3, 4, 3, padding=1)
        self.halves = nn.Conv1d(3, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.all(x), self.halves(x)], 2)


class WithARow(nn.Module):
    """Adds a row of its own to an image."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.row = nn.Conv2d(3, 4, 3, padding=1), nn.Parameter(torch.ones(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        image = self.image(x)
        row = self.row.expand(image.size(0), -1, 1, image.size(3))
        return torch.cat([image, row], 2)


NORMED = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8))
# Each with sizes that it takes, and sizes that it refuses.
STAND_INS: dict[str, tuple[nn.Module, tuple[int, ...], tuple[int, ...]]] = {
    "unshuffled": (Unshuffled(), (2, 3, 386, 384), (2, 3, 386, 386)),
    "two strides": (Viewed(TwoStrides(), 48), (2, 3, 68), (1, 3, 68)),
    "with a row": (Viewed(WithARow(), 64), (1, 3, 63, 1), (1, 3, 64, 8)),
    "normed": (Viewed(NORMED, 512), (2, 3, 8, 4), (1, 3, 8, 4)),
}


@pytest.mark.parametrize("name", STAND_INS)
def test_axes_that_stand_in_for_each_other_are_not_said_to_be_free(shelf: Shelf, name: str) -> None:
    network, taken, refused = STAND_INS[name]
    path = shelf.save(f"stand_in_{name.replace(' ', '_')}", network.eval())
    found = inspect(path).model.contract
    assert found is not None
    assert judge(found, torch.jit.load(path), network).wrong == ()
    assert fits(found, taken) is not False
    assert fits(found, refused) is not True


def fits(contract: Contract, sizes: tuple[int, ...]) -> bool | None:
    """Return whether a contract admits sizes of its only input; None if that is not known."""
    (port,) = contract.inputs
    pairs = list(zip(port.dims or (), sizes, strict=True))
    answers = {admits(dim, size) for dim, size in pairs}
    named = {free.name: size for dim, size in pairs if (free := as_free(dim)) is not None}
    if False in answers or not all_hold(contract.where, named):
        return False
    if None in answers:
        return None
    return True


def test_a_stated_relation_of_one_axis_is_tried_at_other_sizes(shelf: Shelf) -> None:
    network = Viewed(OfAllSamples(), 96).eval()
    path = shelf.save("viewed_one_axis", network)
    stated = "float32[N, 3, L>=4] where (L//2 - 1) % 12 == 0"
    found = inspect(path, options=options(inputs=[stated])).model.contract
    assert found is not None
    assert judge(found, torch.jit.load(path), network).wrong == ()


WAVES: dict[str, nn.Module] = {"samples": Joined(0), "lengths": Joined(2), "apart": Beside()}


@pytest.mark.parametrize("name", WAVES)
def test_sizes_of_another_input_are_no_part_of_a_relation(shelf: Shelf, name: str) -> None:
    network = WAVES[name].eval()
    path = shelf.save(f"two_waves_{name}", network)
    found = inspect(path).model.contract
    assert found is not None
    assert judge(found, torch.jit.load(path), network).wrong == ()


def test_the_verdict_of_a_pair_has_the_products(installed: Installed, shelf: Shelf) -> None:
    a = shelf.save("views_images", NETWORKS["pooled"][0].eval())
    b = shelf.save("pairs_of_rows", nn.Sequential(nn.Unflatten(0, (-1, 2)), nn.Flatten(1)))
    checked = installed.json("check", a, b)
    assert checked.code == 0
    assert checked.json["seams"][0]["when"] == ["N*(H//2)*(W//2)//256 % 2 == 0"]


class Positioned(nn.Module):
    """Reads rows of a sequence that is no longer than its table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.positions, self.head = nn.Parameter(torch.rand(64, 16)), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head((x + self.positions[: x.size(1)]).view(1, -1, 64))
        return result


def test_no_relation_hides_the_end_of_a_table(shelf: Shelf) -> None:
    network = Positioned().eval()
    path = shelf.save("positions_before_a_view", network)
    found = inspect(path).model.contract
    assert found is not None
    assert judge(found, torch.jit.load(path), network).wrong == ()
    assert str(found).startswith("float32[N, T<=64, 16] where N*T % 4 == 0 -> ")


class LongPositions(nn.Module):
    """Adds positions to tokens, and reads rows of them."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(30, 8), nn.Embedding(length, 8)

    def forward(self, ids: Tensor) -> Tensor:
        tokens = self.tokens(ids) + self.positions(torch.arange(ids.size(1)))
        return tokens.reshape(-1, 64)


@pytest.mark.parametrize("length", [4100, 6000, 9000, 20000])
def test_a_long_table_before_a_view_has_its_end(shelf: Shelf, length: int) -> None:
    network = LongPositions(length).eval()
    found = inspect(shelf.save(f"positions_{length}_before_a_view", network)).model.contract
    assert str(found) == (f"int64[N, T<={length}] where N*T % 8 == 0 -> float32[N*T//8, 64]")


class OneSample(Positioned):
    """Takes one sample alone."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.size(0) == 1
        assert x.size(1) <= 64
        result: Tensor = self.head((x + self.positions[: x.size(1)]).view(1, -1, 64))
        return result


def test_a_view_of_axes_with_limits_is_found(installed: Installed, shelf: Shelf) -> None:
    path = shelf.save("one_sample_before_a_view", OneSample().eval())
    ran = installed("inspect", path, "--input", "1,8,16")
    assert "float32[1, T<=64 & T%4==0, 16] -> float32[1, T//4, 2]" in ran.out


class Imitates(nn.Module):
    """Refuses odd batches in words of PyTorch's, with sizes that no tensor has."""

    def __init__(self, shape: str, elements: str) -> None:
        super().__init__()
        self.words = f"shape '[{shape}]' is invalid for input of size {elements}"
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) % 2 == 1:
            raise RuntimeError(self.words)
        result: Tensor = self.head(x)
        return result


@pytest.mark.parametrize(
    ("shape", "elements"),
    [
        ("-1, 0", "5"),
        ("-1, 4", "0"),
        ("-1, 4", "-3"),
        ("-1, 4", "5"),
        ("-1, 999999999999999989", "7"),
        ("-1, 4", "9" * 5000),
        (f"-1, {'9' * 5000}", "5"),
    ],
)
def test_a_refusal_in_the_words_of_a_view_is_no_view(
    installed: Installed, shelf: Shelf, shape: str, elements: str
) -> None:
    name = f"imitates_{shape[:8]}_{len(shape)}_{elements[:3]}_{len(elements)}"
    path = shelf.save(name.replace(", ", "_"), Imitates(shape, elements))
    ran = installed.json("inspect", path)
    assert ran.json["model"]["contract"]["text"] == "float32[N%2==0, 8] -> float32[N%2==0, 2]"
