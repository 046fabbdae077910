"""A command that takes long: what it shows meanwhile, and when it stops."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from tests.commands.running import Installed, environment
from tests.models import Shelf


class Slow(nn.Module):
    """Needs more seconds for one forward than a test has, without an op that takes long."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        i = 0
        while i < 1_000_000_000:
            i += 1
            x = x + 1
        return x


def run_at_a_terminal(*words: str) -> tuple[int, str]:
    """Run the installed command with stderr at a terminal; return its exit code and stderr."""
    terminal, stderr = pty.openpty()
    script = Path(sys.executable).with_name("composecli")
    command = subprocess.Popen(
        [script, *words], stdout=subprocess.DEVNULL, stderr=stderr, env=environment()
    )
    os.close(stderr)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            # Linux reports the end of a terminal like this.
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    return command.wait(), shown.decode()


def test_one_long_forward_shows_what_runs_and_for_how_long(shelf: Shelf) -> None:
    slow = shelf.save("slow", Slow())
    code, shown = run_at_a_terminal("inspect", slow, "--max-seconds", "4", "--no-cache")
    assert code == 3
    lines = re.findall(r"probe 1 on float32\[[\d, ]+\] (\d+) s", shown)
    assert len(set(lines)) >= 3
    last = shown.replace("\n", "").rstrip("\r").rpartition("\r")[2]
    assert not last.strip()


def test_max_seconds_bounds_one_forward(installed: Installed, shelf: Shelf) -> None:
    slow = shelf.save("slow", Slow())
    start = time.monotonic()
    inspected = installed.json("inspect", slow, "--max-seconds", "3", "--no-cache")
    assert time.monotonic() - start < 25
    assert inspected.code == 3
    notes = inspected.json["finding"]["notes"]
    assert "the search stopped: the budget of 3 s is spent" in notes


def test_nothing_is_shown_where_nobody_looks(installed: Installed, shelf: Shelf) -> None:
    assert installed("inspect", shelf.save("linear", nn.Linear(10, 5))).err == ""
