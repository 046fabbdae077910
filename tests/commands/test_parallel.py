"""Models in parallel: one input for all, and outputs that merge."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli
from tests.models import DictOutput, Shelf


def load(name: str) -> torch.jit.ScriptModule:
    return torch.jit.load(name)


def test_parallel_asks_for_one_input_that_all_take(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    checked = composecli.json("check", "--mode", "parallel", a, b)
    assert checked.code == 1
    assert checked.codes == ["CC401"]
    relu = shelf.save("relu", nn.ReLU())
    assert composecli("check", "--mode", "parallel", relu, a).code == 0


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["--dim", "7"], 1, "CC403"),
        (["--dim", "-1"], 0, None),
        (["--dim", "0"], 1, "CC402"),
        (["--merge", "stack"], 1, "CC402"),
        (["--merge", "tuple"], 0, None),
    ],
)
def test_parallel_merges(
    composecli: Composecli, shelf: Shelf, words: list[str], code: int, found: str | None
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("wider", nn.Linear(10, 7))
    checked = composecli.json("check", "--mode", "parallel", a, b, *words)
    assert checked.code == code
    assert found is None or found in checked.codes


def test_parallel_needs_a_tensor_of_each(composecli: Composecli, shelf: Shelf) -> None:
    a, b = shelf.save("dict", DictOutput()), shelf.save("linear", nn.Linear(10, 5))
    checked = composecli.json("check", "--mode", "parallel", a, b)
    assert checked.code == 1
    assert checked.codes == ["CC405"]
    assert composecli("check", "--mode", "parallel", a, b, "--select", "1:logits").code == 0


def test_parallel_with_a_layer_for_the_narrower(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("wider", nn.Linear(10, 7))
    words = ("join", "--mode", "parallel", "--merge", "mean", a, b, "-o", "both.pt")
    assert composecli(*words).code == 1
    assert composecli(*words, "--bridge", "auto").code == 1
    assert composecli(*words, "--bridge", "linear").code == 0
    assert load("both.pt")(torch.rand(2, 10)).shape == (2, 7)


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        (["--dim", "0"], [6, 5]),
        (["--dim", "-1"], [2, 15]),
        (["--merge", "stack", "--dim", "0"], [3, 2, 5]),
        (["--merge", "stack", "--dim", "2"], [2, 5, 3]),
        (["--merge", "add"], [2, 5]),
        (["--merge", "mean"], [2, 5]),
    ],
)
def test_three_in_parallel(
    composecli: Composecli, shelf: Shelf, here: Path, words: list[str], shape: list[int]
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("linear_too", nn.Linear(10, 5))
    joined = composecli("join", "--mode", "parallel", a, b, a, *words, "-o", "both.pt")
    assert joined.code == 0, joined.out
    assert list(load("both.pt")(torch.rand(2, 10)).shape) == shape


def test_the_same_parts_join_again_in_one_process(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    """TorchScript shares the types of similar modules, including their forward."""
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("linear_too", nn.Linear(10, 5))
    for merge, shape in (("cat", (2, 10)), ("add", (2, 5)), ("cat", (2, 10))):
        joined = composecli(
            "join", "--mode", "parallel", "--merge", merge, a, b, "-o", "both.pt", "--force"
        )
        assert joined.code == 0, joined.err
        assert load("both.pt")(torch.rand(2, 10)).shape == shape


def test_a_tuple_of_two(composecli: Composecli, shelf: Shelf, here: Path) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("dict", DictOutput())
    joined = composecli("join", "--mode", "parallel", "--merge", "tuple", a, b, "-o", "both.pt")
    assert joined.code == 0, joined.out
    one, other = load("both.pt")(torch.rand(2, 10))
    assert one.shape == (2, 5)
    assert other["features"].shape == (2, 16)
