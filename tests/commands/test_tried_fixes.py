"""Suggested commands were tried: what they promise holds for the whole chain."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.commands.running import Composecli, Ran


class Several(nn.Module):
    """Returns one output of each of several widths, and one of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        y = self.fc(x)
        return x, y, {"wide": torch.cat([y, x], 1), "same": y * 2}, y.argmax(1)


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Grouped(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        return x, (x, 2 * x), x


@pytest.fixture
def models(here: Path) -> Path:
    torch.manual_seed(0)
    scripted: dict[str, nn.Module] = {
        "several": Several(),
        "five": nn.Linear(5, 4),
        "four": nn.Linear(4, 3),
        "nine": nn.Linear(9, 2),
        "image": nn.Conv2d(3, 4, 3),
        "ids": nn.Embedding(7, 4),
        "two": Two(),
        "grouped": Grouped(),
    }
    for name, module in scripted.items():
        torch.jit.script(module).save(f"{name}.pt")
    return here


def fixes(ran: Ran) -> list[dict[str, Any]]:
    """Return all fixes of all findings, in order."""
    found = list[dict[str, Any]]()
    for seam in ran.json["seams"]:
        for finding in seam["findings"]:
            found += [fix for fix in (finding["fix"], *finding["other_fixes"]) if fix]
    return found


def rerun(composecli: Composecli, command: str) -> Ran:
    """Run a suggested command."""
    name, *words = shlex.split(command)
    assert name == "composecli"
    return composecli(*words)


def selected(command: str) -> str:
    words = shlex.split(command)
    return words[words.index("--select") + 1]


@pytest.mark.parametrize(
    ("chain", "ports"),
    [
        ("several.pt five.pt", ["[1]", "[2].same"]),
        ("several.pt five.pt four.pt", ["1:[1]", "1:[2].same"]),
        ("grouped.pt two.pt", ["[1]"]),
        ("several.pt five.pt --select [2]", ["[1]", "[2].same"]),
        ("several.pt five.pt --select nothing", ["[1]", "[2].same"]),
        ("several.pt five.pt four.pt --select 1:[2]", ["1:[1]", "1:[2].same"]),
        (
            "several.pt several.pt --mode parallel --merge add",
            ["[0]", "[1]", "[2].wide", "[2].same"],
        ),
    ],
)
def test_each_output_that_fits_is_suggested_and_no_other(
    composecli: Composecli, models: Path, chain: str, ports: list[str]
) -> None:
    checked = composecli.json("check", *chain.split())
    assert checked.code == 1
    suggested = [fix["command"] for fix in fixes(checked)]
    assert [selected(command) for command in suggested] == ports
    for command in suggested:
        assert rerun(composecli, command).code == 0


def test_without_an_output_that_fits_nothing_is_selected(
    composecli: Composecli, models: Path
) -> None:
    assert fixes(composecli.json("check", "several.pt", "image.pt")) == []


def test_where_no_output_fits_the_bridges_are_suggested(
    composecli: Composecli, models: Path
) -> None:
    checked = composecli.json("check", "several.pt", "nine.pt")
    assert checked.json["verdict"] == "incompatible"
    found = fixes(checked)
    assert {selected(fix["command"]) for fix in found} == {"[0]", "[1]", "[2].wide", "[2].same"}
    assert found[0]["effect"][0] == "feeds [0] to input"
    assert rerun(composecli, found[0]["command"]).code == 0


def test_a_selection_says_which_seam_does_not_hold_after_it(
    composecli: Composecli, models: Path
) -> None:
    checked = composecli.json("check", "several.pt", "five.pt", "ids.pt")
    first = fixes(checked)[0]
    assert first["effect"] == [
        "feeds [1] to input",
        "five.pt -> ids.pt is incompatible all the same",
    ]


def test_a_bridge_says_which_seam_does_not_hold_after_it(
    composecli: Composecli, models: Path
) -> None:
    checked = composecli.json("check", "five.pt", "nine.pt", "ids.pt")
    (fix,) = fixes(checked)
    assert fix["effect"][-1] == "nine.pt -> ids.pt is incompatible all the same"


def test_every_seam_suggests_the_bridge_mode_that_the_chain_needs(
    composecli: Composecli, here: Path
) -> None:
    torch.jit.script(nn.Conv2d(3, 4, 3)).save("image.pt")
    torch.jit.script(nn.Sequential(nn.Linear(4 * 6 * 6, 5))).save("flat.pt")
    torch.jit.script(nn.Linear(9, 2)).save("nine.pt")
    words = ["image.pt", "flat.pt", "nine.pt", "--input", "1,3,8,8"]
    commands = {fix["command"] for fix in fixes(composecli.json("check", *words))}
    assert len(commands) == 1
    command = commands.pop()
    assert "--bridge linear" in command
    assert rerun(composecli, command).code == 0


def test_alternatives_are_printed_one_below_the_other(composecli: Composecli, models: Path) -> None:
    printed = composecli("check", "several.pt", "five.pt").out
    assert "help: composecli check several.pt five.pt --select '[1]'\n" in printed
    assert "help: composecli check several.pt five.pt --select '[2].same'\n" in printed


def test_a_finding_has_the_op_and_the_submodule_that_failed(
    composecli: Composecli, models: Path
) -> None:
    torch.jit.script(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(9, 2)))).save("inner.pt")
    checked = composecli.json("check", "five.pt", "inner.pt")
    (finding,) = checked.json["seams"][0]["findings"]
    assert finding["op"] == "aten::addmm"
    assert finding["submodule"] == "1.0"
    own = composecli.json("check", "five.pt", "nine.pt").json["seams"][0]["findings"][0]
    assert (own["op"], own["submodule"]) == ("aten::addmm", None)
