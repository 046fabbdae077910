"""Checks and joins on CUDA, if there is a device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli, composecli
from tests.models import Baked, Shelf, encoder

__all__ = ["composecli"]
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("form", ["scripted", "traced", "pickled", "exported"])
def test_a_check_runs_on_cuda(composecli: Composecli, shelf: Shelf, form: str) -> None:
    a = shelf.save("linear", nn.Linear(10, 5), form, (torch.rand(2, 10),))
    checked = composecli.json("check", a, shelf.save("five", nn.Linear(5, 2)), "--device", "cuda")
    assert checked.code == 0
    assert checked.json["device"] == "cuda"
    assert "cuda" in checked.json["models"][0]["contract"]["evidence"][-1]["detail"]


def test_a_mismatch_is_found_on_cuda(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("encoder", encoder()), shelf.save("narrow", nn.Linear(3, 2))
    assert composecli("check", a, b, "--device", "cuda:0").code == 1


def test_a_join_is_verified_on_cuda_and_loads_on_the_cpu(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    joined = composecli("join", a, b, "--bridge", "linear", "--device", "cuda", "-o", "both.pt")
    assert joined.code == 0, joined.out + joined.err
    assert torch.jit.load("both.pt", map_location="cpu")(torch.rand(2, 10)).shape == (2, 2)


def test_a_device_baked_into_a_trace_is_noted(composecli: Composecli, shelf: Shelf) -> None:
    a = shelf.save("baked", Baked(), "traced", (torch.rand(2, 10),))
    checked = composecli.json("check", a, shelf.save("five", nn.Linear(5, 2)), "--device", "cuda")
    assert "CC305" in checked.codes
    assert checked.code != 0
