"""Checkpoints with several entries: how each is named, and which one is taken with which note."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.commands.following_help import commands_in, follow
from tests.commands.running import Composecli, Installed

FACTORY = "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Linear(4, 2))\n"


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 2))


@pytest.fixture(autouse=True)
def folder(here: Path) -> Path:
    """The working directory, with a factory of the module that `make` makes."""
    (here / "net.py").write_text(FACTORY)
    return here


def weights_of(prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in make().state_dict().items()}


def test_each_of_several_modules_is_suggested(installed: Installed) -> None:
    torch.save({"gen": nn.Linear(4, 2), "disc": nn.Linear(2, 1), 3: nn.Linear(5, 5)}, "gan.pt")
    refused = installed("inspect", "gan.pt")
    assert [words[-1] for words in commands_in(refused)] == ["gen", "disc", "3"]
    assert [ran.code for ran in follow(installed, refused)] == [0, 0, 0]


def test_many_modules_are_counted_and_some_suggested(composecli: Composecli) -> None:
    torch.save([nn.Linear(4, 2) for _ in range(20)], "many.pt")
    refused = composecli("inspect", "many.pt")
    assert "the file contains 20 modules" in refused.err
    assert "10, 11 and 8 more" in refused.err
    assert [words[-1] for words in commands_in(refused)] == list("012345")
    assert "name any other of them in the same way: --key NAME" in refused.err
    assert composecli("inspect", "many.pt", "--key", "19").code == 0


@pytest.mark.parametrize(
    "checkpoint",
    [
        {0: weights_of(""), 1: weights_of("")},
        {"rounds": {0: weights_of(""), "0": weights_of("")}},
        {"a.b": weights_of(""), "a": {"b": weights_of("")}},
        {"x": {"a.b": weights_of("")}, "x.a": {"b": weights_of("")}},
        [weights_of(""), weights_of("module.")],
    ],
)
@pytest.mark.parametrize("trusted", [False, True])
def test_entries_with_numbers_and_dots_can_be_told_apart(
    composecli: Composecli, checkpoint: Any, trusted: bool
) -> None:
    for number, weights in enumerate(entries_of(checkpoint)):
        for name in weights:
            weights[name] = torch.full_like(weights[name], number)
    torch.save(checkpoint, "many.pth")
    options = ("--trust", "many.pth") if trusted else ()
    refused = composecli("inspect", "net.py:make@many.pth", *options)
    values = set[float]()
    for words in commands_in(refused):
        joined = composecli(
            "join", *words[1:2], "torch.nn:ReLU", *words[2:], "-o", "o.pt", "--force"
        )
        assert joined.code == 0, joined.err
        values.add(torch.jit.load("o.pt")(torch.zeros(1, 4))[0, 0].item())
    assert values == {0.0, 1.0}


def entries_of(checkpoint: Any) -> Iterator[dict[str, Any]]:
    """Yield the state dicts in nested containers."""
    items = list(checkpoint)
    if isinstance(checkpoint, dict):
        if any(isinstance(value, torch.Tensor) for value in checkpoint.values()):
            yield checkpoint
            return
        items = list(checkpoint.values())
    for item in items:
        yield from entries_of(item)


def test_a_key_that_means_two_entries_says_which_it_is(installed: Installed) -> None:
    torch.save({"a.b": weights_of(""), "a": {"b": weights_of("")}}, "two.pth")
    ran = installed("inspect", "net.py:make@two.pth", "--key", "a.b")
    assert r"a.b is taken as b of a; the entry with dots in its name is --key 'a\.b'" in ran.out
    assert " is taken as " not in installed("inspect", "net.py:make@two.pth", "--key", r"a\.b").out


def test_the_state_of_an_optimizer_is_no_weights_under_any_name(installed: Installed) -> None:
    module = make()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.rand(2, 4)).sum().backward()
    optimizer.step()
    torch.save({"adam": optimizer.state_dict(), "net": module.state_dict()}, "run.pth")
    ran = installed("inspect", "net.py:make@run.pth")
    assert "the weights are the entry net of the checkpoint" in ran.out
    assert "does not fit" not in ran.out
    torch.save(optimizer.state_dict(), "adam.pth")
    refused = installed("inspect", "net.py:make@adam.pth")
    assert "the checkpoint has no weights, but the state of an optimizer" in refused.err


def test_an_entry_that_is_passed_over_is_named_with_the_reason(installed: Installed) -> None:
    wide = nn.Sequential(nn.Linear(4, 7)).state_dict()
    torch.save({"model": wide, "ema": weights_of(""), "d": {"x": torch.ones(1)}}, "ema.pth")
    ran = installed("inspect", "net.py:make@ema.pth")
    assert "note: the weights are the entry ema of the checkpoint" in ran.out
    assert "note: model does not fit: its 0.weight is [7, 4], and [2, 4] in the module" in ran.out
    assert "d does not fit" not in ran.out
    named = installed("inspect", "net.py:make@ema.pth", "--key", "ema")
    assert "does not fit" not in named.out


def test_a_module_beside_weights_and_losses_is_taken_with_a_note(installed: Installed) -> None:
    entries = {"model": weights_of(""), "ema": make(), "criterion": nn.Linear(2, 1)}
    torch.save(entries, "run.pt")
    ran = installed("inspect", "run.pt")
    assert "the module is the entry ema of the checkpoint" in ran.out
    assert "model has weights without their module, and is not used" in ran.out
    assert "criterion is a module, too, and is taken for a part of the training" in ran.out
    assert (
        "float32[N, 2] -> float32[N, 1]" in installed("inspect", "run.pt", "--key", "criterion").out
    )
