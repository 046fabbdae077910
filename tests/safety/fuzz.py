"""Fuzzing of structure: thousands of mutated files, each opened and tried as the command line would.

python -m tests.safety.fuzz [--count 20000] [--seed 0]

Nothing may happen but an answer or a refusal: no traceback, no marker, no hang past the limit, and no contract of a
file that was damaged in what the contract rests on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random

import torch
from torch import nn

from composecli.commands.requests import Options
from composecli.commands.resolve import identify
from composecli.commands.session import Session
from composecli.core.errors import CouldNotAttempt
from composecli.inference.budget import Budget
from composecli.inference.result import Found
from composecli.workers.child import SubprocessWorker
from tests.safety.fixtures import exported, linear, saved
from tests.safety.mutations import Mutated, mutate

TIMEOUT = 5.0
LIMIT = 4 * TIMEOUT
MODELS_TO_A_CHILD = 400
OPTIONS = Options(budget=Budget(6, TIMEOUT))


def bases(folder: Path) -> list[bytes]:
    """A small file of each kind."""
    path = folder / "traced.pt"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.rand(2, 3)).save(str(path))
    traced = path.read_bytes()
    path.unlink()
    return [
        linear(folder),
        traced,
        saved(nn.Sequential(nn.Linear(3, 2))),
        saved(nn.LSTM(3, 2)),
        exported(),
    ]


class Fuzzer:
    """Tries files one after the other with one child, and another where that one died."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = folder / "mark"
        self.worker = SubprocessWorker(TIMEOUT)
        self.tried = 0

    def attempt(self, mutated: Mutated) -> tuple[str, str]:
        """What became of it (`refused`, `found`, `unknown`), and what is wrong with that, empty where nothing is."""
        path = self.folder / "file.pt2"
        path.write_bytes(mutated.data)
        start = time.monotonic()
        try:
            outcome = self._outcome(path)
        except CouldNotAttempt as failure:
            outcome = failure.problem.code
            if outcome in ("CC916", "CC917", "CC918"):
                self._another_child()
            if outcome == "CC970":
                return (
                    outcome,
                    f"a bug: {failure.problem.title} {failure.problem.notes} {failure.problem.trace}",
                )
        except Exception:
            return "traceback", traceback.format_exc()
        if self.mark.exists():
            self.mark.unlink()
            return outcome, "the marker appeared"
        if time.monotonic() - start > LIMIT:
            return outcome, f"it took {time.monotonic() - start:.0f} s"
        if outcome == "found" and mutated.broken:
            return outcome, "a damaged file has a contract"
        return outcome, ""

    def _outcome(self, path: Path) -> str:
        self.tried += 1
        if self.tried % MODELS_TO_A_CHILD == 0:
            self._another_child()
        session = Session(self.worker, OPTIONS, lambda _: None)
        part = session.open(identify(str(path)))
        return "found" if isinstance(session.infer(part), Found) else "unknown"

    def _another_child(self) -> None:
        self.worker.close()
        self.worker = SubprocessWorker(TIMEOUT)

    def close(self) -> None:
        self.worker.close()


def fuzz(count: int, seed: int, first: int = 0) -> tuple[Counter[str], list[str]]:
    """How many files ended how, and what went wrong. `first` is the number of the first of them."""
    outcomes, wrong = Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = bases(folder)
        fuzzer = Fuzzer(folder)
        for number in range(first, first + count):
            random = Random(seed * 1_000_003 + number)
            mutated = mutate(random.choice(files), random, str(fuzzer.mark))
            outcome, problem = fuzzer.attempt(mutated)
            outcomes[outcome] += 1
            if problem:
                wrong.append(f"file {number} of seed {seed} ({mutated.what}): {problem}")
        fuzzer.close()
    return outcomes, wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes, wrong = fuzz(arguments.count, arguments.seed)
    sys.stdout.write("\n".join(wrong) + "\n" if wrong else "")
    words = ", ".join(f"{count} {word}" for word, count in outcomes.most_common())
    sys.stdout.write(f"{arguments.count} files: {words}; wrong: {len(wrong)}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
