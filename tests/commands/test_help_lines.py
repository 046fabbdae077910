"""Every help line of a refusal that is a command or an option is run, and gets further."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from composecli.core.rules import Rule
from tests.commands.following_help import code_of
from tests.commands.running import Installed, Ran

FACTORIES = """
from torch import nn

class Net(nn.Linear):
    def __init__(self, width=4):
        super().__init__(width, 2)

def make():
    return nn.Linear(4, 2)

def broken():
    raise ValueError("no")
"""


class Writes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "out.pt")
        return x


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.fc(x), "hidden": x}


def linear() -> nn.Module:
    return nn.Linear(4, 2)


def hooked() -> nn.Module:
    module = linear()
    module.register_forward_hook(torch.relu)
    return module


def seconds() -> dict[str, object]:
    return {"a": linear().state_dict(), "b": linear().state_dict()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good models, and with whatever else there may be in place of one."""
    folder = tmp_path_factory.mktemp("models")
    os.chdir(folder)
    torch.jit.script(linear()).save("linear.pt")
    torch.jit.script(nn.Linear(2, 3)).save("behind.pt")
    torch.jit.script(nn.Linear(8, 3)).save("wide.pt")
    torch.jit.script(Named()).save("named.pt")
    torch.jit.script(Writes()).save("writes.pt")
    Path("net.py").write_text(FACTORIES)
    torch.save(linear().state_dict(), "weights.pth")
    torch.save(seconds(), "seconds.pth")
    torch.save({"model": linear(), "ema": linear()}, "two.pt")
    torch.save(hooked(), "hooked.pt")
    Path("models").mkdir()
    torch.save(linear(), "models/inner.pt")
    Path("taken.pt").touch()
    return folder


# A command that is refused, and its code.
REFUSED: dict[str, tuple[str, Rule]] = {
    "a misspelt file": ("check linaer.pt behind.pt", Rule.NO_SUCH_FILE),
    "a folder": ("inspect models", Rule.NOT_A_REGULAR_FILE),
    "several modules": ("inspect two.pt", Rule.KEYS_DO_NOT_FIT),
    "a misspelt key": ("inspect two.pt --key modle", Rule.KEYS_DO_NOT_FIT),
    "several weights": ("inspect net.py:make@seconds.pth", Rule.KEYS_DO_NOT_FIT),
    "an unknown key": ("inspect net.py:make@seconds.pth --key c", Rule.KEYS_DO_NOT_FIT),
    "a hook": ("inspect hooked.pt", Rule.HOOKS_NOT_TRUSTED),
    "an op": ("check linear.pt writes.pt", Rule.PROGRAM_NOT_TRUSTED),
    "a misspelt factory": ("inspect net.py:mkae@weights.pth", Rule.FACTORY_FAILED),
    "a misspelt script": ("inspect nett.py:make@weights.pth", Rule.FACTORY_FAILED),
    "a misspelt argument": ("inspect 'net.py:Net(widht=4)@weights.pth'", Rule.FACTORY_FAILED),
    "a broken factory": ("inspect net.py:broken@weights.pth", Rule.FACTORY_FAILED),
    "a device": ("check linear.pt behind.pt --device cuda:77", Rule.NO_SUCH_DEVICE),
    "an output that exists": ("join linear.pt behind.pt -o taken.pt", Rule.OUTPUT_EXISTS),
    "an output that is read": ("join linear.pt behind.pt -o ./linear.pt", Rule.OUTPUT_IS_AN_INPUT),
    "an output that is a folder": ("join linear.pt behind.pt -o models", Rule.OUTPUT_IS_NOT_A_FILE),
    "another format": ("join linear.pt behind.pt -o x.onnx", Rule.OUTPUT_IS_ANOTHER_FORMAT),
    "an output in no folder": ("join linear.pt behind.pt -o new/x.pt", Rule.COULD_NOT_WRITE),
    "widths": ("check linear.pt wide.pt", Rule.SIZE_DIFFERS),
    "a dict": ("check named.pt behind.pt", Rule.STRUCTURE_DIFFERS),
    "a misspelt output": ("check named.pt behind.pt --select logit", Rule.NO_SUCH_OUTPUT),
}  # fmt: skip


def lines(ran: Ran) -> list[str]:
    """Return the help lines of a message."""
    return re.findall(r"^ +help: (?:or )?(.*)$", ran.out + ran.err, re.MULTILINE)


def retries(command: str, line: str) -> Iterator[Callable[[Installed], Ran]]:
    """Yield what a help line says to run: a command, another option, or a command of the shell."""
    words = shlex.split(command)
    if line.startswith("composecli "):
        retry = shlex.split(line)[1:]
        yield lambda run: run(*retry)
    elif line.startswith("-"):
        option = shlex.split(line)[0]
        value = shlex.split(line)[1]
        if option == "-o":
            place = words.index("-o")
            words[place + 1] = value
        else:
            words.append(option)
        yield lambda run: run(*words)
    elif line.startswith("mkdir "):
        yield lambda run: after(shlex.split(line), run, words)


def after(command: list[str], run: Installed, words: list[str]) -> Ran:
    """Run a command of the shell, and then the refused one again."""
    subprocess.run(command, check=True)
    return run(*words)


@pytest.mark.parametrize("name", REFUSED)
def test_each_help_line_of_a_refusal_gets_further(
    installed: Installed, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(folder)
    command, rule = REFUSED[name]
    refused = installed(*shlex.split(command))
    assert refused.code in (1, 2, 3)
    assert code_of(refused) == rule.value, refused.err
    count = 0
    for line in lines(refused):
        for retry in retries(command, line):
            ran = retry(installed)
            count += 1
            assert ran.code == 0 or code_of(ran) != rule.value, f"{line}\n{ran.out}{ran.err}"
    assert count
