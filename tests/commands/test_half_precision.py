"""Half precision through the installed command, whose models cannot open files while they run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.commands.running import Installed
from tests.models import Shelf

DTYPES = (torch.float16, torch.bfloat16)


class Rounds(nn.Module):
    """Computes in float32, and rounds to float16 on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x).half().float()


def half_models(shelf: Shelf, dtype: torch.dtype) -> dict[str, str]:
    """Return saved models of one dtype, with the contract of each."""
    name = str(dtype).removeprefix("torch.")
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    modules = {
        f"{name}[N, 4] -> {name}[N, 64]": nn.Linear(4, 64),
        f"{name}[N, 3, H>=3, W>=3] -> {name}[N, 4]": convolution,
        f"int64[N, T] -> {name}[N, T, 8]": nn.Embedding(9, 8),
    }
    return {
        contract: shelf.save(f"{name}_{number}", module.to(dtype))
        for number, (contract, module) in enumerate(modules.items())
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_contracts_of_half_models_are_found(
    installed: Installed, shelf: Shelf, dtype: torch.dtype
) -> None:
    for contract, path in half_models(shelf, dtype).items():
        inspected = installed.json("inspect", path)
        assert inspected.json["model"]["contract"]["text"] == contract


def test_rounding_inside_a_float32_model_is_compatible(installed: Installed, shelf: Shelf) -> None:
    rounds, head = shelf.save("rounds", Rounds()), shelf.save("of_8", nn.Linear(8, 2))
    assert installed("check", rounds, head).code == 0


def test_half_output_is_cast_for_a_float32_model(installed: Installed, shelf: Shelf) -> None:
    embedding = shelf.save("half_ids", nn.Sequential(nn.Embedding(9, 64)).half())
    head = shelf.save("of_64", nn.Linear(64, 3))
    checked = installed("check", embedding, head)
    assert checked.code == 1
    assert "verdict: bridgeable" in checked.out
    assert "adds cast to float32" in checked.out
