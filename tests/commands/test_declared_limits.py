"""A limit that is stated, by a user or in a file, costs no more than the sizes that are tried."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from torch import nn

from tests.commands.running import environment
from tests.models import Shelf

SCRIPT = Path(sys.executable).with_name("composecli")
MAX_MEMORY = 3 * 2**30


def test_a_limit_of_a_billion_sizes_takes_no_memory(shelf: Shelf) -> None:
    a, b = shelf.save("rows_of_16", nn.Linear(16, 4)), shelf.save("rows_of_4", nn.Linear(4, 4))
    ran = subprocess.run(
        ["bash", "-c", 'ulimit -v "$1"; shift; exec "$@"', "bash", str(MAX_MEMORY // 1024),
         SCRIPT, "check", a, b, "--input", "float32[2, T<=1000000000, 16]", "--isolation", "none"],
        env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ran.returncode, "compatible" in ran.stdout) == (0, True), ran.stderr
