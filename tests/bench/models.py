"""The models of the bench, made by it and deleted after: small ones, large ones, a ResNet-50, and many."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from torch import nn


class Bottleneck(nn.Module):
    """As in He et al., Deep Residual Learning for Image Recognition (2015), table 1."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        self.beside = nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        )
        if before == after:
            self.beside = nn.Sequential()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.beside(x))


def resnet50() -> nn.Sequential:
    """`(N, 3, H, W)` to `(N, 1000)`, with about 25.6 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    before = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            layers.append(Bottleneck(before, width, 1 if number else stride))
            before = 4 * width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)
    ).eval()


class FromVector(nn.Module):
    """A ResNet-50 behind what makes an image of a vector: `(N, 1000)` to `(N, 1000)`."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(1000, 3 * 32 * 32)
        self.inner = resnet50()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.up(x).view(-1, 3, 32, 32))


def tower(width: int, last: int, layers: int = 31) -> nn.Sequential:
    """`(N, width)` to `(N, last)`: about `4 * layers * width * width` bytes."""
    inner: list[nn.Module] = []
    for _ in range(layers):
        inner += [nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU()]
    return nn.Sequential(*inner, nn.Linear(width, last)).eval()


def small(folder: Path) -> None:
    parts = {"one": (nn.Sequential(nn.Linear(10, 5), nn.ReLU()), 10), "other": (nn.Linear(5, 2), 5)}
    for name, (module, width) in parts.items():
        torch.jit.script(module).save(str(folder / f"{name}.pt"))
        torch.export.save(
            torch.export.export(module, (torch.rand(2, width),)), folder / f"{name}.pt2"
        )


def large(folder: Path, name: str, width: int) -> None:
    torch.jit.script(tower(width, width)).save(str(folder / f"{name}_a.pt"))
    torch.jit.script(tower(width, 10)).save(str(folder / f"{name}_b.pt"))


def residual(folder: Path) -> None:
    torch.jit.script(resnet50()).save(str(folder / "resnet_a.pt"))
    torch.jit.script(FromVector().eval()).save(str(folder / "resnet_b.pt"))


def many(folder: Path, count: int) -> None:
    for number in range(count):
        module = nn.Sequential(
            nn.Linear(8 + number % 7, 32), nn.ReLU(), nn.Linear(32, 8 + number % 5)
        )
        torch.jit.script(module).save(str(folder / f"many_{number}.pt"))


def main(what: str, folder: Path, number: int) -> None:
    torch.set_num_threads(2)
    match what:
        case "small":
            small(folder)
        case "large" | "middle":
            large(folder, what, number)
        case "residual":
            residual(folder)
        case "many":
            many(folder, number)


if __name__ == "__main__":
    with warnings.catch_warnings(action="ignore"):
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
