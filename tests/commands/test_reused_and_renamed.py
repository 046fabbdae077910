"""Weights and modules as people really save them: renamed keys, shared layers, parametrizations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.commands.running import Installed
from tests.models import Shelf

FACTORIES = """
import torch
from torch import nn

def with_norm():
    return nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 5)).eval()

def parametrized():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(12, 5)))

def on_meta():
    with torch.device("meta"):
        return nn.Linear(12, 5)
"""


def with_norm() -> dict[str, Any]:
    module = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 5))
    return {name: value for name, value in module.state_dict().items() if "num_b" not in name}


def old_weight_norm() -> dict[str, Any]:
    with pytest.warns(FutureWarning):
        return dict(nn.Sequential(nn.utils.weight_norm(nn.Linear(12, 5))).state_dict())


def parametrized() -> dict[str, Any]:
    weight_norm = nn.utils.parametrizations.weight_norm
    return dict(nn.Sequential(weight_norm(nn.Linear(12, 5))).state_dict())


@pytest.mark.parametrize(
    ("factory", "weights"),
    [
        ("with_norm", with_norm),
        ("parametrized", old_weight_norm),
        ("parametrized", parametrized),
        ("on_meta", lambda: nn.Linear(12, 5).state_dict()),
    ],
    ids=["BatchNorm without counts", "old weight norm", "weight norm", "made on meta"],
)
def test_weights_that_torch_loads_strictly_are_checked_and_joined(
    installed: Installed, shelf: Shelf, here: Path, factory: str, weights: Any
) -> None:
    Path("made.py").write_text(FACTORIES)
    torch.save(weights(), "weights.pth")
    model, head = f"made.py:{factory}@weights.pth", shelf.save("five_wide", nn.Linear(5, 2))
    assert installed("join", model, head, "-o", "both.pt").code == 0
    assert torch.jit.load("both.pt").eval()(torch.rand(3, 12)).shape == (3, 2)


def test_a_layer_used_twice_in_a_pickle_is_shared_in_the_joined_file(
    installed: Installed, shelf: Shelf, here: Path
) -> None:
    layer = nn.Linear(16, 16)
    twice = shelf.save("twice", nn.Sequential(layer, nn.ReLU(), layer), "pickled")
    head = shelf.save("of_16", nn.Linear(16, 2))
    ran = installed("join", twice, head, "-o", "both.pt")
    assert ran.code == 0
    assert "sharing: 2 shared tensors" in ran.out
    joined = torch.jit.load("both.pt")
    assert len({parameter.data_ptr() for parameter in joined.parameters()}) == 4


COUNTER = """
from typing import List

import torch
from torch import nn

class Counter(nn.Module):
    past: List[int]

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.calls = 0
        self.past = [0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.past.append(self.calls)
        return self.fc(x) + self.calls + len(self.past)
"""


def test_numbers_and_lists_of_a_module_are_joined_as_they_were(
    installed: Installed, shelf: Shelf, here: Path
) -> None:
    Path("counter.py").write_text(COUNTER)
    torch.save(
        {f"fc.{name}": value for name, value in nn.Linear(4, 5).state_dict().items()}, "c.pt"
    )
    head = shelf.save("five_wide", nn.Linear(5, 2))
    assert installed("join", "counter.py:Counter@c.pt", head, "-o", "both.pt").code == 0
    assert torch.jit.load("both.pt").part_0.calls == 0
