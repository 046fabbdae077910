"""Portability: devices that are baked into a model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tests.commands.running import Composecli
from tests.models import Baked, Shelf, rewrite


def test_a_baked_device_is_noted(composecli: Composecli, shelf: Shelf) -> None:
    a = shelf.save("baked", Baked(), "traced", (torch.rand(2, 10),))
    inspected = composecli.json("inspect", a)
    assert "cpu as a constant" in inspected.json["portability"][0]
    elsewhere = shelf.folder / "baked_elsewhere.pt"
    rewrite(
        Path(a),
        elsewhere,
        "code/",
        lambda code: code.replace(b'torch.device("cpu")', b'torch.device("cuda:3")'),
    )
    checked = composecli.json("check", elsewhere, shelf.save("five", nn.Linear(5, 2)))
    assert "CC305" in checked.codes
    assert checked.code == 3
