"""Stated inputs: --input is the contract if it is true, and a finding if it is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli
from tests.models import NanCheck, Shelf, encoder


def test_a_refused_input_is_a_finding(composecli: Composecli, shelf: Shelf) -> None:
    checked = composecli.json(
        "check",
        shelf.save("linear", nn.Linear(10, 5)),
        shelf.save("relu", nn.ReLU()),
        "--input",
        "2,11",
    )
    assert checked.code == 1
    assert checked.codes[0] == "CC310"


@pytest.mark.parametrize(
    ("stated", "contract"),
    [
        ("float32[N>=7,10]", "float32[N>=7, 10] -> float32[N>=7, 5]"),
        ("float32[N%8==0,10]", "float32[N%8==0, 10] -> float32[N%8==0, 5]"),
        ("float32[3<=N<=4,10]", "float32[3<=N<=4, 10] -> float32[3<=N<=4, 5]"),
        ("2,3,10", "float32[N, T, 10] -> float32[N, T, 5]"),
        ("0,10", "float32[0, 10] -> float32[0, 5]"),
        ("input=2,10", "float32[N, 10] -> float32[N, 5]"),
    ],
)
def test_a_stated_input_is_in_the_contract(
    composecli: Composecli, shelf: Shelf, stated: str, contract: str
) -> None:
    inspected = composecli.json(
        "inspect", shelf.save("linear", nn.Linear(10, 5)), "--input", stated
    )
    assert inspected.json["model"]["contract"]["text"] == contract


def test_a_wrong_statement_is_not_believed(composecli: Composecli, shelf: Shelf) -> None:
    flat = shelf.save("flat", nn.Sequential(nn.Flatten(), nn.Linear(1024, 3)))
    inspected = composecli.json(
        "inspect", flat, "--input", "float32[N,64,H,4]", "--input", "float32[N,64,H,4]"
    )
    assert inspected.code == 3
    inspected = composecli.json("inspect", flat, "--input", "float32[N,64,H%4==0,4]")
    assert inspected.code == 3
    inspected = composecli.json(
        "inspect", flat, "--input", "float32[N,C,4,4]", "--input", "float32[N,C,4,4]"
    )
    assert inspected.code == 3
    wide = shelf.save("wide_enough", nn.Sequential(nn.Flatten(), nn.Linear(8 * 4, 3)))
    inspected = composecli.json("inspect", wide, "--input", "float32[N,C,4]")
    assert inspected.json["model"]["contract"]["text"] == "float32[N, ?, 4] -> float32[N, 3]"


def test_an_unknown_input_name_is_refused(composecli: Composecli, shelf: Shelf) -> None:
    refused = composecli("inspect", shelf.save("linear", nn.Linear(10, 5)), "--input", "x=2,10")
    assert refused.code == 3
    assert "CC925" in refused.err
    assert "its inputs: input" in refused.err


def test_an_input_too_large_for_memory_is_a_finding(composecli: Composecli, shelf: Shelf) -> None:
    inspected = composecli.json(
        "inspect", shelf.save("linear", nn.Linear(10, 5)), "--input", "100000000000000,10"
    )
    assert inspected.code == 3
    assert inspected.json["finding"]["code"] == "CC307"


def test_stated_names_are_free_dims_of_the_contract(composecli: Composecli, shelf: Shelf) -> None:
    checked = composecli.json(
        "check",
        shelf.save("encoder", encoder()),
        shelf.save("relu", nn.ReLU()),
        "--input",
        "float32[B,3,H>=64,W>=64]",
    )
    model = checked.json["models"][0]["contract"]
    assert model["text"].startswith("float32[B, 3, H>=64, W>=64] -> float32[B, 64, ceil(H/8)")
    assert model["evidence"][0]["kind"] == "declared"


def test_a_sample_file_is_an_input(composecli: Composecli, shelf: Shelf) -> None:
    sample = shelf.folder / "sample.pt"
    torch.save(torch.full((4, 5), 3.0), sample)
    a, b = shelf.save("nan_check", NanCheck(), "pickled"), shelf.save("two", nn.Linear(2, 1))
    assert composecli("check", a, b, "--trust", a, "--trust", b, "--input", f"@{sample}").code == 0
    torch.save(torch.full((4, 5), -3.0), sample)
    assert composecli("check", a, b, "--trust", a, "--trust", b, "--input", f"@{sample}").code == 3
