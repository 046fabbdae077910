"""Models in parallel: the sizes at which all take the input and their outputs merge."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli
from tests.conditional_pairs import Multiples
from tests.models import Shelf


def conv(stride: int = 1, padding: int = 1) -> nn.Module:
    return nn.Conv2d(3, 4, 3, stride, padding)


def head(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 256, 4))


class Rows(nn.Module):
    """A convolution with as many rows as a function of the height says, by no rule of dims."""

    def __init__(self, rows: Callable[[int], int], *, repeats: bool = False) -> None:
        super().__init__()
        self.conv = conv()
        self.rows = rows
        self.repeats = repeats

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        rows = self.rows(x.size(2))
        return y.mean(2, keepdim=True).expand(-1, -1, rows, -1) if self.repeats else y[:, :, :rows]


def root(height: int) -> int:
    return int(height**0.5) + 3


def twenty(height: int) -> int:
    return 20


def even(height: int) -> int:
    return 2 * root(height)


MODELS = {
    "pool_7": nn.Sequential(conv(), nn.AdaptiveAvgPool2d(7)),
    "root": Rows(root),
    "first_20": Rows(twenty),
    "even": Rows(even, repeats=True),
    "same": conv(),
    "strided": conv(2),
    "halved": nn.Sequential(conv(), nn.MaxPool2d(2)),
    "valid": conv(1, 0),
    "multiples": Multiples(3, 8),
    "pooled": nn.Sequential(conv(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "head_16": head(conv()),
    "rows": nn.Linear(10, 5),
    "wider": nn.Linear(10, 7),
    "narrow": nn.Linear(3, 5),
}
IMAGE = ["H==16", "W==16"]


@pytest.mark.parametrize(
    ("models", "merge", "holds", "when"),
    [
        ("rows rows", "add", "always", []),
        ("same same", "add", "always", []),
        ("rows wider", "cat", "always", []),
        ("rows wider", "add", "never", []),
        ("rows narrow", "add", "never", []),
        ("same strided", "add", "sometimes", ["H==1", "W==1"]),
        ("strided halved", "add", "sometimes", ["H%2==0", "W%2==0"]),
        ("pooled multiples", "add", "sometimes", ["H%8==0", "W%8==0"]),
        ("multiples pooled", "add", "always", []),
        ("pooled head_16", "mean", "sometimes", IMAGE),
        ("head_16 pooled", "mean", "always", []),
        ("same valid", "add", "never", []),
        ("root same", "add", "sometimes", ["H<=5"]),
        ("root pool_7", "add", "sometimes", ["16<=H<=24", "W==7"]),
        ("pool_7 root", "add", "sometimes", ["16<=H<=24", "W==7"]),
        ("first_20 pool_7", "add", "sometimes", ["H==7", "W==7"]),
    ],
)
def test_the_common_sizes_are_told(
    models: str, merge: str, holds: str, when: list[str], composecli: Composecli, shelf: Shelf
) -> None:
    names = models.split()
    paths = [shelf.save(f"parallel_{name}", MODELS[name]) for name in names]
    words = ("check", "--mode", "parallel", "--merge", merge, *paths)
    checked = composecli.json(*words)
    (seam,) = checked.json["seams"]
    assert (seam["holds"], seam["when"]) == (holds, when)
    assert checked.code == (1 if holds == "never" else 0)
    assert composecli.json(*words, "--strict").code == (0 if holds == "always" else 1)
    if holds == "sometimes":
        assert runs(names, seam["fits_at"])
        assert not runs(names, seam["fails_at"])


def test_sizes_that_nothing_excludes_are_unknown(composecli: Composecli, shelf: Shelf) -> None:
    paths = [shelf.save(f"parallel_{name}", MODELS[name]) for name in ("even", "pool_7")]
    words = ("check", "--mode", "parallel", "--merge", "add", *paths)
    checked = composecli.json(*words)
    assert (checked.code, checked.codes) == (3, ["CC207", "CC205"])
    assert checked.json["seams"][0]["holds"] == "unknown"
    stated = composecli.json(*words, "--input", "float32[2, 3, 7, 7]")
    assert (stated.code, stated.codes) == (1, ["CC402"])


def runs(names: list[str], sizes: dict[str, int]) -> bool:
    """Return whether two models of images take one, and their results can be added."""
    image = torch.zeros(sizes["N"], 3, sizes["H"], sizes["W"])
    try:
        one, other = (MODELS[name](image) for name in names)
    except (RuntimeError, AssertionError):
        return False
    return bool(one.shape == other.shape)
