"""The examples from the requirements, each with its exit code and its message."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Installed
from tests.models import DictOutput, Shelf, TwoInputs, TwoOutputs, encoder


def load(path: Path) -> torch.jit.ScriptModule:
    return torch.jit.load(str(path))


def test_a_linear_then_a_relu(installed: Installed, shelf: Shelf, here: Path) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("relu", nn.ReLU())
    checked = installed("check", a, b)
    assert checked.code == 0
    assert "verdict: compatible" in checked.out
    assert installed("join", a, b, "-o", "both.pt").code == 0
    assert load(here / "both.pt")(torch.rand(1, 10)).shape == (1, 5)


def test_widths_that_differ_are_named_and_bridged(
    installed: Installed, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    checked = installed.json("check", a, b)
    (finding,) = checked.json["seams"][0]["findings"]
    assert checked.code == 1
    assert checked.json["verdict"] == "bridgeable"
    assert finding["code"] == "CC203"
    assert finding["axis"] == 1
    assert [side["text"] for side in finding["sides"]] == ["float32[N, 5]", "float32[N, 3]"]
    assert "18 parameters, untrained" in finding["fix"]["effect"][0]
    assert "Linear(5 -> 3)" in finding["fix"]["effect"][0]

    refused = installed("join", a, b, "-o", "both.pt")
    assert refused.code == 1
    assert list(here.iterdir()) == []

    bridged = installed("join", a, b, "--bridge", "linear", "-o", "both.pt")
    assert bridged.code == 0
    assert "untrained" in bridged.out
    assert load(here / "both.pt")(torch.rand(1, 10)).shape == (1, 2)


def test_two_in_parallel(installed: Installed, shelf: Shelf, here: Path) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("linear_too", nn.Linear(10, 5))
    assert installed("join", "--mode", "parallel", a, b, "--dim", "1", "-o", "both.pt").code == 0
    assert load(here / "both.pt")(torch.rand(1, 10)).shape == (1, 10)

    wider = shelf.save("wider", nn.Linear(10, 7))
    checked = installed.json("check", "--mode", "parallel", "--merge", "add", a, wider)
    (finding,) = checked.json["seams"][0]["findings"]
    assert checked.code == 1
    assert finding["code"] == "CC402"
    assert finding["title"] == "axis 1 differs: 5 and 7, and add needs them equal"
    assert "--bridge linear" in finding["fix"]["command"]
    assert "--merge cat --dim 1" in finding["notes"][0]


def test_a_feature_map_then_a_head(installed: Installed, shelf: Shelf, here: Path) -> None:
    a, b = (
        shelf.save("encoder", encoder()),
        shelf.save("head", nn.Linear(64 * 4 * 4, 10), "pickled"),
    )
    checked = installed("check", a, b, "--input", "1,3,32,32")
    assert checked.code == 1
    assert "adds flatten from axis 1" in checked.out
    assert f"composecli join {a} {b} --input 1,3,32,32 --bridge auto -o both.pt" in checked.out
    assert installed("join", a, b, "--input", "1,3,32,32", "-o", "both.pt").code == 1
    assert (
        installed("join", a, b, "--input", "1,3,32,32", "--bridge", "auto", "-o", "both.pt").code
        == 0
    )
    assert load(here / "both.pt")(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_floats_into_ids(installed: Installed, shelf: Shelf) -> None:
    a, b = (
        shelf.save("embedding", nn.Embedding(50, 8)),
        shelf.save("vocabulary_30", nn.Embedding(30, 4)),
    )
    checked = installed.json("check", a, b)
    assert checked.code == 1
    assert checked.json["verdict"] == "incompatible"
    assert checked.codes[0] == "CC201"


def test_two_inputs_after_one_output(installed: Installed, shelf: Shelf) -> None:
    checked = installed.json(
        "check", shelf.save("linear", nn.Linear(10, 5)), shelf.save("two_in", TwoInputs())
    )
    assert checked.code == 1
    assert checked.codes == ["CC101"]


def test_two_inputs_after_two_outputs(installed: Installed, shelf: Shelf, here: Path) -> None:
    a, b = shelf.save("two_out", TwoOutputs()), shelf.save("two_in", TwoInputs())
    assert installed("check", a, b).code == 0
    assert installed("join", a, b, "-o", "both.pt").code == 0
    assert load(here / "both.pt")(torch.rand(3, 10)).shape == (3, 5)


def test_a_dict_where_a_tensor_is_wanted(installed: Installed, shelf: Shelf, here: Path) -> None:
    a, b = shelf.save("dict", DictOutput()), shelf.save("five", nn.Linear(5, 2))
    checked = installed.json("check", a, b)
    (finding,) = checked.json["seams"][0]["findings"]
    assert checked.code == 1
    assert finding["code"] == "CC102"
    assert finding["fix"]["command"] == f"composecli check {a} {b} --select logits"
    assert installed("check", a, b, "--select", "logits").code == 0
    assert installed("join", a, b, "--select", "logits", "-o", "both.pt").code == 0
    assert load(here / "both.pt")(torch.rand(3, 10)).shape == (3, 2)


@pytest.mark.parametrize("form", ["exported", "pickled", "traced"])
def test_forms_mix(installed: Installed, shelf: Shelf, here: Path, form: str) -> None:
    a = shelf.save("linear", nn.Linear(10, 5), form, (torch.rand(2, 10),))
    b = shelf.save("five", nn.Linear(5, 2))
    assert installed("check", a, b).code == 0
    joined = installed("join", a, b, "-o", "both.pt")
    assert joined.code == 0
    assert ("CC502" in joined.out) == (form == "exported")
    assert load(here / "both.pt")(torch.rand(7, 10)).shape == (7, 2)
