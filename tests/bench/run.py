"""How long commands take, against what a user would otherwise run: medians of ratios of paired repeats, in one run.

python -m tests.bench.run [--repeats 9] [--row NAME]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

PYTHON = (sys.executable, "-c")
COMPOSECLI = (sys.executable, "-m", "composecli")
Words = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A command and what it is measured against; the ratio of their times is to be at most `goal`."""

    name: str
    command: Words
    against: Words
    goal: float


def rows(folder: Path) -> list[Row]:
    one, other = (str(folder / name) for name in ("one.pt", "other.pt"))
    first, second = (str(folder / name) for name in ("one.pt2", "other.pt2"))
    imported = (*PYTHON, "import torch")
    return [
        Row("check, two small TorchScript models", (*COMPOSECLI, "check", one, other), imported, 1.2),
        Row("check, two small .pt2", (*COMPOSECLI, "check", first, second), imported, 1.3),
        Row("--help", (*COMPOSECLI, "--help"), (*PYTHON, "pass"), 6),
        Row(
            "check, confined",
            (*COMPOSECLI, "check", one, other),
            (*COMPOSECLI, "check", one, other, "--isolation", "none"),
            1.15,
        ),
    ]


def make(folder: Path) -> None:
    """The models of the bench: small ones of two kinds."""
    parts = {"one": nn.Sequential(nn.Linear(10, 5), nn.ReLU()), "other": nn.Linear(5, 2)}
    with warnings.catch_warnings(action="ignore"):
        for name, module in parts.items():
            width = 10 if name == "one" else 5
            torch.jit.script(module).save(str(folder / f"{name}.pt"))
            torch.export.save(torch.export.export(module, (torch.rand(2, width),)), folder / f"{name}.pt2")


def _seconds(words: Words) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    start = time.perf_counter()
    ran = subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    seconds = time.perf_counter() - start
    if ran.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(words)} ended with {ran.returncode}")
    return seconds


def ratio(row: Row, repeats: int, seconds: Callable[[Words], float] = _seconds) -> tuple[float, float, float]:
    """The median of the ratios of pairs that ran one after the other, and the medians of both sides."""
    pairs = [(seconds(row.command), seconds(row.against)) for _ in range(repeats + 1)][1:]
    median = statistics.median
    return median(a / b for a, b in pairs), median(a for a, _ in pairs), median(b for _, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--row", default="", help="rows whose names hold this")
    arguments = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        sys.stdout.write(f"{'measure':40}{'ratio':>7}{'goal':>7}{'seconds':>10}{'against':>10}\n")
        for row in rows(Path(name)):
            if arguments.row in row.name:
                found, ours, theirs = ratio(row, arguments.repeats)
                missed += found > row.goal
                sys.stdout.write(f"{row.name:40}{found:7.2f}{row.goal:7.2f}{ours:10.2f}{theirs:10.2f}\n")
                sys.stdout.flush()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
