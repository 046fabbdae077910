"""The models of the bench, made for a run and deleted after it.

python -m tests.bench.models KIND FOLDER NUMBER
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from tests.bench.suite import MODELS, name_of, suite_text


class Bottleneck(nn.Module):
    """The block of He et al., Deep Residual Learning for Image Recognition (2015), table 1."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        self.shortcut = nn.Sequential()
        if before != after:
            projection = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(after))
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Sequential:
    """Return a ResNet-50, `(N, 3, H, W) -> (N, 1000)`, with about 25.6 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    before = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            # Only the first block of a stage reduces the size.
            block_stride = 1
            if number == 0:
                block_stride = stride
            layers.append(Bottleneck(before, width, block_stride))
            before = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    return nn.Sequential(*layers).eval()


class FromVector(nn.Module):
    """A layer that turns a vector into an image, then a ResNet-50: `(N, 1000) -> (N, 1000)`."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(1000, 3 * 32 * 32)
        self.inner = resnet50()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.up(x).view(-1, 3, 32, 32))


def tower(width: int, last: int, layers: int = 31) -> nn.Sequential:
    """Return a model `(N, width) -> (N, last)` of about `4 * layers * width**2` bytes."""
    inner: list[nn.Module] = []
    for _ in range(layers):
        inner += [nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU()]
    return nn.Sequential(*inner, nn.Linear(width, last)).eval()


def small(folder: Path) -> None:
    """Save two small models that fit, scripted and exported."""
    models = {
        "one": (nn.Sequential(nn.Linear(10, 5), nn.ReLU()), 10),
        "other": (nn.Linear(5, 2), 5),
    }
    for name, (module, width) in models.items():
        torch.jit.script(module).save(str(folder / f"{name}.pt"))
        program = torch.export.export(module, (torch.rand(2, width),))
        torch.export.save(program, folder / f"{name}.pt2")


def large(folder: Path, name: str, width: int) -> None:
    """Save two models that fit, of the size that the width gives."""
    torch.jit.script(tower(width, width)).save(str(folder / f"{name}_a.pt"))
    torch.jit.script(tower(width, 10)).save(str(folder / f"{name}_b.pt"))


def residual(folder: Path) -> None:
    """Save a ResNet-50 and a model that fits after it."""
    torch.jit.script(resnet50()).save(str(folder / "resnet_a.pt"))
    torch.jit.script(FromVector().eval()).save(str(folder / "resnet_b.pt"))


def many(folder: Path, count: int) -> None:
    """Save many small models, some of which fit each other."""
    for number in range(count):
        first = nn.Linear(8 + number % 7, 32)
        last = nn.Linear(32, 8 + number % 5)
        module = nn.Sequential(first, nn.ReLU(), last)
        torch.jit.script(module).save(str(folder / f"many_{number}.pt"))


def suite(folder: Path) -> None:
    """Save small models of several kinds, and a suite of pairs of them."""
    for number in range(MODELS):
        width, last = 8 + 8 * (number % 3), 8 + 8 * (number // 3 % 3)
        kinds: tuple[nn.Module, ...] = (
            nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, last)),
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, last)),
            nn.Sequential(nn.Conv2d(3, last, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Embedding(100 + number, width),
        )
        module = kinds[number % len(kinds)].eval()
        torch.jit.script(module).save(str(folder / name_of(number)))
    (folder / "suite.toml").write_text(suite_text())


def main(kind: str, folder: Path, number: int) -> None:
    """Save the models of one kind; `number` is a width or a count."""
    torch.set_num_threads(2)
    match kind:
        case "small":
            small(folder)
        case "large" | "middle":
            large(folder, kind, number)
        case "residual":
            residual(folder)
        case "many":
            many(folder, number)
        case "suite":
            suite(folder)


if __name__ == "__main__":
    with warnings.catch_warnings(action="ignore"):
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
