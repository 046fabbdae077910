"""A bridge is offered only if it does not rest on sizes that composecli chose itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli, Installed
from tests.models import Shelf, encoder


class Sequences(nn.Module):
    """Returns `(N, T, 16)`."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(x)[0]


class States(nn.Module):
    """Returns the states of two layers, `(2, N, 24)`: the batch is the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 24, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(x)[1]


def test_sequences_before_a_linear_differ_in_width_and_not_in_rank(
    installed: Installed, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("sequences", Sequences()), shelf.save("of_32", nn.Linear(32, 2))
    checked = installed.json("check", a, b)
    (finding,) = checked.json["seams"][0]["findings"]
    assert (finding["code"], finding["axis"]) == ("CC203", 2)
    assert finding["fix"]["bridge"] == [
        {"type": "Linear", "axis": 2, "before": 16, "after": 32, "dtype": "float32"}
    ]
    assert installed("join", a, b, "--bridge", "auto", "-o", "auto.pt").code == 1
    assert not (here / "auto.pt").exists()
    assert installed("join", a, b, "--bridge", "linear", "-o", "linear.pt").code == 0
    joined = torch.jit.load("linear.pt")
    for length in (1, 2, 7):
        assert joined(torch.rand(3, length, 8)).shape == (3, length, 2)


def test_a_flatten_never_mixes_the_samples_of_a_batch(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("states", States()), shelf.save("of_48", nn.Linear(48, 2))
    for stated in ([], ["--input", "2,3,8"]):
        checked = composecli.json("check", a, b, *stated)
        assert checked.code == 1
        for finding in checked.json["seams"][0]["findings"]:
            steps = (finding["fix"] or {"bridge": []})["bridge"]
            assert "Flatten" not in [step["type"] for step in steps]


def test_a_flatten_at_stated_sizes_says_for_which_sizes_it_holds(
    composecli: Composecli, shelf: Shelf
) -> None:
    a, b = shelf.save("encoder", encoder()), shelf.save("of_1024", nn.Linear(1024, 10))
    checked = composecli("check", a, b, "--input", "1,3,32,32")
    assert "adds flatten from axis 1" in checked.out
    assert "with the bridge: compatible when" in checked.out
    unstated = composecli("check", a, b)
    assert "rank differs" in unstated.out
    assert "flatten" not in unstated.out


@pytest.mark.parametrize("command", ["check", "join"])
def test_strict_holds_with_a_bridge(
    composecli: Composecli, shelf: Shelf, here: Path, command: str
) -> None:
    a, b = shelf.save("encoder", encoder()), shelf.save("of_1024", nn.Linear(1024, 10))
    words = ["--strict", "--input", "1,3,32,32"]
    if command == "join":
        words += ["--bridge", "linear", "-o", "both.pt"]
    ran = composecli(command, a, b, *words)
    assert ran.code == 1
    assert "--bridge auto" not in ran.out
    assert list(here.iterdir()) == []


def test_a_join_is_verified_at_other_sizes_of_every_free_dim(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("sequences", Sequences()), shelf.save("of_16", nn.Linear(16, 2))
    ran = composecli("join", a, b, "-o", "both.pt", "--input", "2,5,8")
    assert "outputs: float32[2, 5, 8] -> float32[2, 5, 2]" in ran.out
    assert "outputs: float32[3, 6, 8] -> float32[3, 6, 2]" in ran.out


def test_a_size_that_the_bridge_pins_is_kept_in_the_verification(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("encoder", encoder()), shelf.save("of_1024", nn.Linear(1024, 10))
    words = ("--input", "2,3,32,32", "--bridge", "auto", "-o", "both.pt")
    ran = composecli("join", a, b, *words)
    assert "outputs: float32[3, 3, 32, 32] -> float32[3, 10]" in ran.out


class TwoBatches(nn.Module):
    """Returns `(N, 1, 8)` and `(N2, 8, 1)` for inputs of two independent batches."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 8)
        self.b = nn.Linear(4, 8)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x).unsqueeze(1), self.b(y).unsqueeze(2)


class OneBatch(nn.Module):
    """Takes `(N, 8)` and `(N, 8)`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.fc(a) + self.fc(b)


def test_inputs_that_share_a_batch_share_it_behind_a_bridge(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("two_batches", TwoBatches()), shelf.save("one_batch", OneBatch())
    assert "compatible when N == N2" in composecli("check", a, b).out
    words = ("--bridge", "auto", "-o", "both.pt")
    assert composecli("join", a, b, "--strict", *words).code == 1
    assert list(here.iterdir()) == []
    assert composecli("join", a, b, *words).code == 0


def test_an_axis_that_has_one_size_only_near_the_example_is_not_squeezed(
    composecli: Composecli, shelf: Shelf
) -> None:
    a = shelf.save("strided", nn.Conv1d(3, 4, 3, stride=16, padding=1))
    b = shelf.save("of_4", nn.Linear(4, 2))
    checked = composecli("check", a, b, "--input", "float32[N,3,W]")
    assert "squeeze" not in checked.out


class Lengths(nn.Module):
    """Maps `(N, T)` to `(N, T)`, or to a slice of it."""

    def __init__(self, dropped: int) -> None:
        super().__init__()
        self.dropped = dropped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.dropped :]


def test_parallel_models_are_not_bridged_at_the_size_of_the_example_alone(
    installed: Installed, shelf: Shelf, here: Path
) -> None:
    whole, shorter = (
        shelf.save("whole_length", Lengths(0)),
        shelf.save("shorter_length", Lengths(1)),
    )
    words = ["--mode", "parallel", "--merge", "add", whole, shorter]
    words += ["--input", "float32[N,T]"]
    checked = installed.json("check", *words)
    assert checked.code == 1
    for finding in checked.json["seams"][0]["findings"]:
        assert finding["fix"] is None
    joined = installed("join", *words, "--bridge", "linear", "-o", "b.pt")
    assert joined.code == 1
    assert not Path("b.pt").exists()


def test_a_parallel_bridge_at_a_stated_size_says_so(
    installed: Installed, shelf: Shelf, here: Path
) -> None:
    whole, shorter = (
        shelf.save("whole_length", Lengths(0)),
        shelf.save("shorter_length", Lengths(1)),
    )
    words = ["--mode", "parallel", "--merge", "add", whole, shorter, "--input", "2,8"]
    checked = installed.json("check", *words)
    titles = [finding["title"] for finding in checked.json["seams"][0]["findings"]]
    assert any(title.startswith("with the bridge: compatible when") for title in titles)
    joined = installed("join", *words, "--bridge", "linear", "-o", "b.pt")
    assert joined.code == 0, joined.out + joined.err
    assert installed("join", *words, "--strict", "--bridge", "linear", "-o", "c.pt").code == 1


def test_a_parallel_bridge_of_fixed_widths_has_no_condition(
    installed: Installed, shelf: Shelf, here: Path
) -> None:
    five, seven = (
        shelf.save("from_4_to_5", nn.Linear(4, 5)),
        shelf.save("from_4_to_7", nn.Linear(4, 7)),
    )
    words = ["--mode", "parallel", "--merge", "add", five, seven, "--strict"]
    (finding,) = installed.json("check", *words).json["seams"][0]["findings"]
    assert finding["fix"]["bridge"]
    joined = installed("join", *words, "--bridge", "linear", "-o", "b.pt")
    assert joined.code == 0, joined.out + joined.err
    assert torch.jit.load("b.pt")(torch.rand(6, 4)).shape == (6, 7)
