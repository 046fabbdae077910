"""A join that is killed at any moment leaves the old file or the new one, byte for byte.

The next run removes the leftovers.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import nn

from tests.commands.running import environment
from tests.models import Shelf

OLD_CONTENT = b"the file that was there"


def join_command(shelf: Shelf) -> list[str]:
    """Return a join that takes long enough to be interrupted in the middle."""
    models = [
        shelf.save("wide_first", nn.Linear(10, 4000)),
        shelf.save("wide_second", nn.Linear(4000, 5)),
    ]
    options = ["-o", "both.pt", "--force", "--quiet"]
    return [sys.executable, "-m", "composecli", "join", *models, *options]


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in this folder without its output."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=quiet, stderr=quiet)


def kill_repeatedly(
    shelf: Shelf, folder: Path, kills: int, seed: int, signals: tuple[signal.Signals, ...]
) -> None:
    """Send one of the signals at a random moment of each run, and check what each run leaves."""
    command = join_command(shelf)
    output = folder / "both.pt"
    output.write_bytes(OLD_CONTENT)
    began = time.monotonic()
    assert start(command, folder).wait() == 0
    duration = time.monotonic() - began
    new_content = output.read_bytes()
    generator = random.Random(seed)
    counts = {OLD_CONTENT: 0, new_content: 0}
    for _ in range(kills):
        output.write_bytes(OLD_CONTENT)
        number = generator.choice(signals)
        names_before = set(os.listdir(folder))
        process = start(command, folder)
        time.sleep(duration * generator.uniform(0.05, 1.05))
        process.send_signal(number)
        process.wait()
        content = output.read_bytes()
        assert content in counts, f"{len(content)} bytes of neither file"
        counts[content] += 1
        if number is not signal.SIGKILL:
            assert set(os.listdir(folder)) <= names_before
    assert counts[OLD_CONTENT]
    assert start(command, folder).wait() == 0
    assert os.listdir(folder) == ["both.pt"]
    assert output.read_bytes() == new_content


def test_a_killed_join_leaves_the_old_file_or_the_new_one(shelf: Shelf, tmp_path: Path) -> None:
    signals = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    kill_repeatedly(shelf, tmp_path, 8, 0, signals)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_a_join_killed_at_150_random_moments_leaves_a_whole_file(
    shelf: Shelf, tmp_path: Path, seed: int
) -> None:
    kill_repeatedly(shelf, tmp_path, 150, seed, (signal.SIGKILL,))
