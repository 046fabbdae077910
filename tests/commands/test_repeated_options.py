"""Commands that a message suggests repeat the options that the user gave."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.following_help import commands_in
from tests.commands.running import Composecli, Installed

HELPER = "from torch import nn\n\n\nclass Net(nn.Linear):\n    pass\n"
# Options of every command on models, each with a value that is not the default.
OPTIONS = (
    "--input float32[N,4]",
    "--training eval",
    "--device meta",
    "--import helper.py",
    "--allow-op aten::save",
    "--isolation none",
    "--timeout 60",
    "--max-memory 64G",
    "--max-probes 90",
    "--max-seconds 40",
)
# Commands with a suggestion, each of another kind.
COMMANDS = (
    "check a.pt b.pt",
    "check --mode parallel --merge add a.pt wide.pt",
    "check pair.pt c.pt",
    "check a.pt modules.pt",
    "check aa.pt b.pt",
    "check a.pt own.pt",
    "inspect modules.pt",
    "inspect own.pt",
    "join a.pt b.pt -o out.pt --seed 3",
    "join pair.pt c.pt -o out.pt --seed 3",
    "join a.pt modules.pt -o out.pt --seed 3",
)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fc(x), self.fc(x).sum(1)


@pytest.fixture
def folder(here: Path) -> Path:
    """A working directory with models, the second of which does not fit the first."""
    (here / "helper.py").write_text(HELPER)
    torch.jit.script(nn.Linear(4, 3)).save("a.pt")
    torch.jit.script(nn.Linear(5, 2)).save("b.pt")
    torch.jit.script(nn.Linear(3, 2)).save("c.pt")
    torch.jit.script(nn.Linear(4, 9)).save("wide.pt")
    torch.jit.script(Pair()).save("pair.pt")
    torch.save({"first": nn.Linear(3, 2), "second": nn.Linear(3, 1)}, "modules.pt")
    torch.save(Pair(), "own.pt")
    return here


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_repeated(composecli: Composecli, folder: Path, command: str) -> None:
    words = shlex.split(" ".join(OPTIONS))
    if not command.startswith("inspect"):
        words.append("--strict")
    ran = composecli(*command.split(), *words)
    suggested = [text for text in commands_in(ran) if text[0] in ("check", "join", "inspect")]
    assert suggested, ran.out + ran.err
    for text in suggested:
        line = " ".join(text)
        for option in (*OPTIONS, *words[len(OPTIONS) * 2 :]):
            assert option in line
        if command.startswith("join"):
            assert text[0] == "join"
            assert "--seed 3" in line
            assert "-o out.pt" in line


def test_defaults_are_not_repeated(composecli: Composecli, folder: Path) -> None:
    ran = composecli("check", "a.pt", "b.pt", "--timeout", "300", "--isolation", "best")
    (suggested,) = commands_in(ran)
    assert suggested == ["join", "a.pt", "b.pt", "--bridge", "linear", "-o", "both.pt"]


def test_a_suggested_bridge_of_a_strict_join_works_as_printed(
    installed: Installed, folder: Path
) -> None:
    refused = installed("join", "a.pt", "b.pt", "--strict", "-o", "out.pt", "--timeout", "120")
    (suggested,) = commands_in(refused)
    assert "--strict" in suggested
    assert installed(*suggested).code == 0
    assert (folder / "out.pt").exists()
