"""A join that is killed at any moment leaves the old file or the new one, byte for byte, and the next run cleans up."""

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

OLD = b"the file that was there"


def _words(shelf: Shelf) -> list[str]:
    parts = [
        shelf.save("wide_first", nn.Linear(10, 4000)),
        shelf.save("wide_second", nn.Linear(4000, 5)),
    ]
    return [
        sys.executable,
        "-m",
        "composecli",
        "join",
        *parts,
        "-o",
        "both.pt",
        "--force",
        "--quiet",
    ]


def _run(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, cwd=folder, env=environment(), stdout=quiet, stderr=quiet)


def _killed(
    shelf: Shelf, folder: Path, moments: int, seed: int, numbers: tuple[signal.Signals, ...]
) -> None:
    words, output = _words(shelf), folder / "both.pt"
    output.write_bytes(OLD)
    start = time.monotonic()
    assert _run(words, folder).wait() == 0
    whole, new = time.monotonic() - start, output.read_bytes()
    generator = random.Random(seed)
    ends = {OLD: 0, new: 0}
    for _ in range(moments):
        output.write_bytes(OLD)
        number, before = generator.choice(numbers), set(os.listdir(folder))
        process = _run(words, folder)
        time.sleep(whole * generator.uniform(0.05, 1.05))
        process.send_signal(number)
        process.wait()
        found = output.read_bytes()
        assert found in ends, f"{len(found)} bytes of neither file"
        ends[found] += 1
        if number is not signal.SIGKILL:
            assert set(os.listdir(folder)) <= before
    assert ends[OLD]
    assert _run(words, folder).wait() == 0
    assert os.listdir(folder) == ["both.pt"]
    assert output.read_bytes() == new


def test_a_killed_join_leaves_the_old_file_or_the_new_one(shelf: Shelf, tmp_path: Path) -> None:
    _killed(shelf, tmp_path, 8, 0, (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_at_300_moments(shelf: Shelf, tmp_path: Path, seed: int) -> None:
    _killed(shelf, tmp_path, 150, seed, (signal.SIGKILL,))
