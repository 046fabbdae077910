"""Pairs whose first model takes any shape: the condition is the input of the second."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli, Installed
from tests.models import Shelf


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.lstm(x)[0]
        return output


PAIRS = {
    "softmax, lstm": (nn.Softmax(-1), Recurrent(), "float32[N, T, 10]"),
    "relu, conv": (nn.ReLU(), nn.Conv2d(3, 4, 3), "float32[N, 3, H>=3, W>=3]"),
    "tanh, linear": (nn.Tanh(), nn.Linear(10, 3), "float32[N, 10]"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_condition_is_the_input_of_the_consumer(
    name: str, composecli: Composecli, shelf: Shelf
) -> None:
    producer, consumer, port = PAIRS[name]
    first = shelf.save(f"any shape {name} first", producer)
    second = shelf.save(f"any shape {name} second", consumer)
    ran = composecli.json("check", first, second)
    (seam,) = ran.json["seams"]
    assert (ran.code, seam["holds"], seam["when"], seam["fits_at"]) == (0, "sometimes", [], None)
    (finding,) = [item for item in seam["findings"] if item["code"] == "CC205"]
    assert finding["title"].startswith("compatible when the input is one that ")
    assert finding["title"].endswith(f"takes, such as {port}")
    refused = finding["notes"][0].rpartition("[")[2].removesuffix("]")
    sizes = [int(size) for size in refused.split(",")]
    with pytest.raises(RuntimeError):
        consumer(producer(torch.zeros(sizes)))
    assert composecli("check", first, second, "--strict").code == 1


def test_a_consumer_that_refuses_no_shape_fits_always(installed: Installed, shelf: Shelf) -> None:
    first = shelf.save("any shape into any shape first", nn.ReLU())
    second = shelf.save("any shape into any shape second", nn.GELU())
    ran = installed.json("check", first, second, "--strict")
    assert (ran.code, ran.json["seams"][0]["holds"]) == (0, "always")
