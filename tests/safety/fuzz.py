"""Fuzz the structure of model files: mutate them, and analyse each one as the command line would.

python -m tests.safety.fuzz [--count 20000] [--seed 0] [--scripts | --programs]

With `--scripts`, the files are TorchScript archives, and what torch evaluates and trusts in them is
mutated; with `--programs`, the same of .pt2 archives. The worker is not confined.

Each file must be analysed or refused. It is a failure if there is a traceback, the marker file
appears, the time limit is exceeded, or a file gets a contract that would rest on damaged bytes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from torch import nn

from composecli.commands.requests import Options
from composecli.commands.resolve import identify
from composecli.commands.session import Session
from composecli.core.errors import CouldNotAttempt
from composecli.core.rules import Rule
from composecli.inference import Found
from composecli.inference.prober import Budget
from composecli.workers.child import SubprocessWorker
from tests.safety.fixtures import MODULE, exported, linear, saved, script_archive
from tests.safety.mutations import Mutated, Mutation, mutate, mutate_program
from tests.safety.script_mutations import mutate_script

TIMEOUT_SECONDS = 5.0
MAX_SECONDS = 4 * TIMEOUT_SECONDS
MAX_MODELS_PER_WORKER = 400
OPTIONS = Options(budget=Budget(6, TIMEOUT_SECONDS))
# The worker crashed, timed out, or sent an invalid message.
WORKER_FAILURES = (
    Rule.WORKER_CRASHED,
    Rule.WORKER_TIMED_OUT,
    Rule.WORKER_ANSWERED_NONSENSE,
)


def bases(folder: Path) -> list[bytes]:
    """Return a small valid file of each kind."""
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
    """Analyses one file after another in a worker, and replaces the worker if it dies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = folder / "mark"
        self.worker = SubprocessWorker(TIMEOUT_SECONDS)
        self.attempts = 0

    def attempt(self, mutated: Mutated) -> tuple[str, str]:
        """Analyse one file; return the outcome, and the failure ("" if the outcome is allowed).

        The outcome is `found`, `unknown`, `traceback`, or the code of a problem.
        """
        path = self.folder / "file.pt2"
        path.write_bytes(mutated.data)
        start = time.monotonic()
        try:
            outcome = self._analyse(path)
        except CouldNotAttempt as failure:
            problem = failure.problem
            outcome = problem.code
            if problem.rule in WORKER_FAILURES:
                self._restart_worker()
            if problem.rule is Rule.A_BUG_OF_OURS:
                return outcome, f"a bug: {problem.title} {problem.notes} {problem.trace}"
        except Exception:
            return "traceback", traceback.format_exc()
        seconds = time.monotonic() - start
        return outcome, self._failure(mutated, outcome, seconds)

    def _failure(self, mutated: Mutated, outcome: str, seconds: float) -> str:
        if self.mark.exists():
            self.mark.unlink()
            return "the marker appeared"
        if seconds > MAX_SECONDS:
            return f"it took {seconds:.0f} s"
        if outcome == "found" and mutated.broken:
            return "a damaged file has a contract"
        return ""

    def _analyse(self, path: Path) -> str:
        self.attempts += 1
        if self.attempts % MAX_MODELS_PER_WORKER == 0:
            self._restart_worker()
        session = Session(self.worker, OPTIONS, lambda _: None)
        model = session.open(identify(str(path)))
        if isinstance(session.infer(model), Found):
            return "found"
        return "unknown"

    def _restart_worker(self) -> None:
        self.worker.close()
        self.worker = SubprocessWorker(TIMEOUT_SECONDS)

    def close(self) -> None:
        """End the worker."""
        self.worker.close()


def scripts(folder: Path) -> list[bytes]:
    """Return small TorchScript archives: scripted, traced and written by hand."""
    path = folder / "nested.pt"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(nn.TransformerEncoderLayer(4, 2, 4)).save(str(path))
    data = path.read_bytes()
    path.unlink()
    return [*bases(folder)[:2], data, script_archive(MODULE)]


def programs(_folder: Path) -> list[bytes]:
    """Return a small .pt2 archive."""
    return [exported()]


def fuzz(
    count: int,
    seed: int,
    first: int = 0,
    make_bases: Callable[[Path], list[bytes]] = bases,
    mutation: Mutation = mutate,
) -> tuple[Counter[str], list[str]]:
    """Analyse `count` mutated files, starting with number `first` of this seed.

    Returns:
        How many files had each outcome, and a line for each failure.
    """
    outcomes = Counter[str]()
    failures = list[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_bases(folder)
        fuzzer = Fuzzer(folder)
        for number in range(first, first + count):
            random = Random(seed * 1_000_003 + number)
            mutated = mutation(random.choice(files), random, str(fuzzer.mark))
            outcome, failure = fuzzer.attempt(mutated)
            outcomes[outcome] += 1
            if failure:
                failures.append(f"file {number} of seed {seed} ({mutated.description}): {failure}")
        fuzzer.close()
    return outcomes, failures


def main() -> int:
    """Fuzz as many files as the command line asks for; return 1 if any of them failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scripts", action="store_true")
    parser.add_argument("--programs", action="store_true")
    arguments = parser.parse_args()
    make_bases: Callable[[Path], list[bytes]] = bases
    mutation: Mutation = mutate
    if arguments.scripts:
        make_bases, mutation = scripts, mutate_script
    elif arguments.programs:
        make_bases, mutation = programs, mutate_program
    outcomes, failures = fuzz(
        arguments.count, arguments.seed, make_bases=make_bases, mutation=mutation
    )
    for failure in failures:
        sys.stdout.write(f"{failure}\n")
    summary = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    sys.stdout.write(f"{arguments.count} files: {summary}; failures: {len(failures)}\n")
    if failures:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
