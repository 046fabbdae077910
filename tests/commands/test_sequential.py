"""Models in sequence: every seam of a chain is judged."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tests.commands.running import Composecli
from tests.models import DictOutput, NanCheck, Shelf


def load(name: str) -> torch.jit.ScriptModule:
    return torch.jit.load(name)


def test_a_chain_judges_every_seam(composecli: Composecli, shelf: Shelf) -> None:
    a, b, c = (
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("narrow", nn.Linear(3, 2)),
        shelf.save("two", nn.Linear(2, 1)),
    )
    checked = composecli.json("check", a, b, c)
    assert [seam["verdict"] for seam in checked.json["seams"]] == ["bridgeable", "compatible"]
    assert checked.code == 1


def test_a_selection_finds_its_model_in_a_chain(composecli: Composecli, shelf: Shelf) -> None:
    a, b, c = (
        shelf.save("ten", nn.Linear(4, 10)),
        shelf.save("dict", DictOutput()),
        shelf.save("five", nn.Linear(5, 2)),
    )
    for port in ("logits", "2:logits"):
        assert composecli("check", a, b, c, "--select", port).code == 0
    wrong = composecli.json("check", a, b, c, "--select", "1:logits")
    assert wrong.code == 1
    assert wrong.codes[0] == "CC103"
    missing = composecli.json("check", a, b, c)
    fix = missing.json["seams"][1]["findings"][0]["fix"]["command"]
    assert fix.endswith("--select 2:logits")


def test_a_model_without_a_contract_may_still_pass_a_chain(
    composecli: Composecli, shelf: Shelf
) -> None:
    """The seam before it holds all the same, and the chain continues after it."""
    parts = [
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("relu", nn.ReLU()),
        shelf.save("nan_check", NanCheck(), "pickled"),
        shelf.save("two", nn.Linear(2, 1)),
    ]
    trust = ("--trust", parts[2])
    checked = composecli.json("check", *parts, *trust)
    assert [seam["verdict"] for seam in checked.json["seams"]] == [
        "compatible",
        "compatible",
        "compatible",
    ]
    assert checked.code == 0
    strict = composecli.json("check", *parts, *trust, "--strict")
    assert (strict.code, strict.codes) == (0, [])
    assert [seam["holds"] for seam in strict.json["seams"]] == ["always", "always", "always"]
    wrong = composecli.json("check", *parts[:3], shelf.save("narrow", nn.Linear(3, 2)), *trust)
    assert (wrong.code, wrong.codes) == (1, ["CC203"])


def test_a_chain_of_three(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    parts = [
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("relu", nn.ReLU()),
        shelf.save("five", nn.Linear(5, 2)),
    ]
    assert composecli("join", *parts, "-o", "all.pt").code == 0
    assert load("all.pt")(torch.rand(2, 10)).shape == (2, 2)
