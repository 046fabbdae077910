"""Models in parallel: the sizes at which all take the input and their outputs merge."""

from __future__ import annotations

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


MODELS = {
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


def runs(names: list[str], sizes: dict[str, int]) -> bool:
    """Return whether two models of images take one, and their results can be added."""
    image = torch.zeros(sizes["N"], 3, sizes["H"], sizes["W"])
    try:
        one, other = (MODELS[name](image) for name in names)
    except (RuntimeError, AssertionError):
        return False
    return bool(one.shape == other.shape)
