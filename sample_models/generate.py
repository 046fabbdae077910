"""Generate the sample models next to this file: small, seeded, the same on every machine."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from factory import make
from torch import nn

HERE = Path(__file__).parent


class TwoInputs(nn.Module):
    """`(N, 5), (N, 5) -> (N, 1)`."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 1)
        self.right = nn.Linear(5, 1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.left(left) + self.right(right)


class DictOutput(nn.Module):
    """`(N, 10) -> {"logits": (N, 5), "features": (N, 16)}`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(10, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.relu(self.body(x))
        return {"logits": self.head(features), "features": features}


class Reader(nn.Module):
    """`(N, 64, 4, W) -> (N, W, 11)`: reads digits in the columns of a feature map.

    Its LSTM was built without batch_first=True, and so takes the images of a batch for time steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.Linear(64 * 4, 32)
        self.lstm = nn.LSTM(32, 32)
        self.digits = nn.Linear(32, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = self.columns(x.flatten(1, 2).transpose(1, 2))
        states, _ = self.lstm(columns)
        return self.digits(states)


def encoder() -> nn.Module:
    """Return a model `(N, 3, H, W) -> (N, 64, ceil(H/8), ceil(W/8))`."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
    )


def scripted() -> dict[str, nn.Module]:
    """Return the models that are saved with torch.jit.script, by name."""
    return {
        "linear_10_5": nn.Linear(10, 5),
        "linear_3_2": nn.Linear(3, 2),
        "linear_5_2": nn.Linear(5, 2),
        "relu": nn.ReLU(),
        "encoder": encoder(),
        "reader": Reader(),
        "two_inputs": TwoInputs(),
        "dict_output": DictOutput(),
    }


def pickled() -> dict[str, nn.Module]:
    """Return the models that are saved with torch.save, by name."""
    models = {
        "linear_10_7": nn.Linear(10, 7),
        "head_1024": nn.Linear(64 * 4 * 4, 10),
        "embedding": nn.Embedding(100, 8),
        "tokens": nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.LazyLinear(3)),
    }
    # Fix the size of the lazy layer.
    models["tokens"](torch.zeros(1, 6, dtype=torch.int64))
    return models


def main() -> None:
    """Save every sample model."""
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    for name, module in scripted().items():
        torch.jit.script(module).save(str(HERE / f"{name}.pt"))
    for name, module in pickled().items():
        torch.save(module, HERE / f"{name}.pt")
    traced = torch.jit.trace(nn.GRU(8, 12, batch_first=True), torch.rand(2, 6, 8))
    traced.save(str(HERE / "gru_traced.pt"))
    batch = torch.export.Dim("batch", max=64)
    sizes = ({0: batch},)
    program = torch.export.export(nn.Linear(10, 5), (torch.rand(2, 10),), dynamic_shapes=sizes)
    torch.export.save(program, HERE / "linear_10_5.pt2")
    torch.save({"state_dict": make().state_dict(), "epoch": 3}, HERE / "factory_weights.pt")


if __name__ == "__main__":
    main()
