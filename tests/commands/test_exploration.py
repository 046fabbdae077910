"""Exploration on meta: fast, and never the last word."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli
from tests.models import Shelf


def test_meta_explores_and_the_cpu_decides(composecli: Composecli, shelf: Shelf) -> None:
    a, b = (
        shelf.save("double_linear", nn.Linear(10, 5).double()),
        shelf.save("five", nn.Linear(5, 2)),
    )
    checked = composecli.json("check", a, b, "--device", "meta")
    assert checked.code == 1
    assert "CC201" in checked.codes
    fits = shelf.save("linear", nn.Linear(10, 5))
    green = composecli.json("check", fits, b, "--device", "meta")
    assert green.code == 0
    assert green.codes == ["CC309"]


@pytest.mark.parametrize("form", ["scripted", "traced", "exported", "pickled"])
def test_every_form_is_explored_on_meta(composecli: Composecli, shelf: Shelf, form: str) -> None:
    a, b = (
        shelf.save("linear", nn.Linear(10, 5), form, (torch.rand(2, 10),)),
        shelf.save("five", nn.Linear(5, 2)),
    )
    checked = composecli.json("check", a, b, "--device", "meta")
    assert checked.code == 0
    contract = checked.json["models"][0]["contract"]
    assert contract["text"] == "float32[N, 10] -> float32[N, 5]"
    assert "meta at" in contract["evidence"][-1]["detail"]


def test_a_model_that_fails_on_meta_is_explored_on_the_cpu(
    composecli: Composecli, shelf: Shelf
) -> None:
    gru = shelf.save("gru", nn.GRU(8, 12, batch_first=True), "traced", (torch.rand(2, 6, 8),))
    for device in ("cpu", "meta"):
        inspected = composecli.json("inspect", gru, "--device", device)
        text = inspected.json["model"]["contract"]["text"]
        assert text == "float32[N, T, 8] -> (float32[N, T, 12], float32[1, N, 12])"
