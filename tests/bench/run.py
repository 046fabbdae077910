"""Compare what commands cost with what a user would otherwise run.

python -m tests.bench.run [--repeats 9] [--row TEXT] [--gigabytes 2]

Each figure is the median of the ratios of paired repeats in one run.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench import suite
from tests.bench.measure import Measured, Words, fill_free_memory, measure

PYTHON = (sys.executable, "-c")
COMPOSECLI = (sys.executable, "-m", "composecli")
IMPORT_TORCH = (*PYTHON, "import torch")
MANY_COUNT = 30
LAYERS = 31
# The size of the model that the large ones are compared with.
MIDDLE_GIGABYTES = 0.02
SCRIPT = """
import sys, torch
torch.set_num_threads(1)
shape = tuple(map(int, sys.argv[3].split(",")))
first = torch.jit.load(sys.argv[1], map_location="cpu")
second = torch.jit.load(sys.argv[2], map_location="cpu")
first.eval()
second.eval()
with torch.no_grad():
    print(second(first(torch.zeros(shape))).shape)
"""
SMALL = ("one.pt", "other.pt")
EXPORTED = ("one.pt2", "other.pt2")
LARGE = ("large_a.pt", "large_b.pt")
MIDDLE = ("middle_a.pt", "middle_b.pt")
RESIDUAL = ("resnet_a.pt", "resnet_b.pt")
MANY = tuple(f"many_{number}.pt" for number in range(MANY_COUNT))


@dataclass(frozen=True)
class Row:
    """A command and the one that it is compared with; each ratio must not exceed its goal.

    `files` names the models that are made for it. `writes` lists the large files that the commands
    write; they are removed before each run.
    """

    name: str
    command: Words
    against: Words
    goals: Mapping[str, float]
    files: str = "small"
    repeats: int | None = None
    writes: tuple[Path, ...] = ()


# What both sides of a row cost in one repeat.
Pair = tuple[Measured, Measured]


class Commands:
    """The commands that are compared, on the models in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self, names: Words) -> Words:
        """Return the paths of models in the folder."""
        return tuple(str(self.folder / name) for name in names)

    def check(self, names: Words) -> Words:
        """Check models without the cache."""
        return (*COMPOSECLI, "check", *self.paths(names), "--no-cache")

    def cached_check(self, names: Words) -> Words:
        """Check models with the cache."""
        return (*COMPOSECLI, "check", *self.paths(names))

    def script(self, names: Words, shape: str) -> Words:
        """Run two models in a script as a user would write it."""
        return (*PYTHON, SCRIPT, *self.paths(names), shape)

    def join(self, names: Words, output: Path) -> Words:
        """Join models into one file."""
        return (*COMPOSECLI, "join", *self.paths(names), "-o", str(output), "--force")

    def copy(self, names: Words) -> Words:
        """Copy the files and wait until they are on the disk."""
        copies = [f"{self.folder}/copy_{name}" for name in names]
        commands = list[str]()
        for path, copy in zip(self.paths(names), copies, strict=True):
            commands.append(f"cp {path} {copy}")
        commands.append(f"sync {' '.join(copies)}")
        return ("sh", "-c", " && ".join(commands))

    def inspect_each(self, names: Words) -> Words:
        """Inspect models one after another without the cache."""
        inspect = f"{sys.executable} -m composecli inspect"
        return ("sh", "-c", " && ".join(f"{inspect} {p} --no-cache" for p in self.paths(names)))

    def check_each(self, pairs: list[tuple[str, str]]) -> Words:
        """Check pairs one after another without the cache, whatever is found."""
        return ("sh", "-c", "; ".join(shlex.join(self.check(pair)) for pair in pairs))


def rows(folder: Path, width: int) -> list[Row]:
    """Return the rows of the bench; `width` is the size of the large models' input."""
    commands = Commands(folder)
    return [
        *_small_rows(commands),
        *_large_rows(commands, width),
        _many_row(commands),
        _suite_row(commands),
    ]


def _small_rows(commands: Commands) -> list[Row]:
    check = commands.check
    return [
        Row("check, two small TorchScript, cold", check(SMALL), IMPORT_TORCH, {"time": 1.2}),
        Row("check, two small .pt2, cold", check(EXPORTED), IMPORT_TORCH, {"time": 1.3}),
        Row(
            "check, the same pair again",
            commands.cached_check(SMALL),
            IMPORT_TORCH,
            {"time": 0.15},
        ),
        Row(
            "--help, against python -c pass",
            (*COMPOSECLI, "--help"),
            (*PYTHON, "pass"),
            {"time": 6},
        ),
        Row(
            "check, against no isolation",
            check(SMALL),
            (*check(SMALL), "--isolation", "none"),
            {"time": 1.15},
        ),
        Row(
            "check, ResNet-50s, no hints, against a script",
            check(RESIDUAL),
            commands.script(RESIDUAL, "1,3,224,224"),
            {"time": 1.0},
            files="residual",
            repeats=5,
        ),
    ]


def _large_rows(commands: Commands, width: int) -> list[Row]:
    check = commands.check
    joined = commands.folder / "joined.pt"
    written = (joined, *(commands.folder / f"copy_{name}" for name in LARGE))
    return [
        Row(
            "check, large, against a script",
            check(LARGE),
            commands.script(LARGE, f"1,{width}"),
            {"time": 0.5, "memory": 0.1},
            files="large",
            repeats=3,
        ),
        Row(
            "check, large, against 20 MB",
            check(LARGE),
            check(MIDDLE),
            {"time": 1.1, "memory": 1.1},
            files="large",
            repeats=5,
        ),
        Row(
            "join, large, against cp and sync",
            commands.join(LARGE, joined),
            commands.copy(LARGE),
            {"time": 2},
            files="large",
            repeats=5,
            writes=written,
        ),
        Row(
            "join, large, against import torch",
            commands.join(LARGE, joined),
            IMPORT_TORCH,
            {"anonymous": 2},
            files="large",
            repeats=3,
        ),
    ]


def _many_row(commands: Commands) -> Row:
    return Row(
        f"check, {MANY_COUNT} files in pairs, against {MANY_COUNT} inspects",
        (*commands.check(MANY), "--mode", "pairs"),
        commands.inspect_each(MANY),
        {"time": 1.1},
        files="many",
        repeats=3,
    )


def _suite_row(commands: Commands) -> Row:
    """Return the row of a suite, whose goal is a quarter of the time of all its checks alone."""
    return Row(
        f"suite, {suite.CHECKS} checks, against {len(suite.SAMPLE)} of them alone",
        (*COMPOSECLI, "suite", *commands.paths(("suite.toml",)), "--no-cache"),
        commands.check_each([suite.pair(check) for check in suite.SAMPLE]),
        {"time": 0.25 * suite.CHECKS / len(suite.SAMPLE)},
        files="suite",
        repeats=3,
    )


def make(kind: str, folder: Path, width: int) -> None:
    """Make the files of some rows, in another process so that its memory is freed."""
    numbers = {
        "small": 0,
        "residual": 0,
        "many": MANY_COUNT,
        "suite": 0,
        "large": width,
        "middle": width_of(MIDDLE_GIGABYTES),
    }
    kinds = [kind]
    if kind == "large":
        kinds = ["large", "middle"]
    for name in kinds:
        words = [sys.executable, "-m", "tests.bench.models", name, str(folder), str(numbers[name])]
        subprocess.run(words, check=True, env=_environment(folder))


def width_of(gigabytes: float) -> int:
    """Return the width of the layers of a model of about this size."""
    return int(math.sqrt(gigabytes * 1e9 / 4 / LAYERS))


def _environment(folder: Path) -> dict[str, str]:
    environment = dict(os.environ)
    # Users have compiled bytecode, so the commands need it, too.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["OMP_NUM_THREADS"] = "1"
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    return environment


def pairs(row: Row, repeats: int, folder: Path) -> list[Pair]:
    """Measure both sides of a row alternately; a first pair that warms the caches is dropped."""
    measured = list[Pair]()
    for _ in range((row.repeats or repeats) + 1):
        command = _measure_side(row.command, row.writes, folder)
        against = _measure_side(row.against, row.writes, folder)
        measured.append((command, against))
    return measured[1:]


def _measure_side(words: Words, writes: tuple[Path, ...], folder: Path) -> Measured:
    for path in writes:
        path.unlink(missing_ok=True)
    if writes:
        fill_free_memory(folder / "empty")
        # Read the inputs, so that both sides find them in memory.
        for path in folder.glob("large_*"):
            subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)
    return measure(words, _environment(folder), (0, 1))


def report_lines(row: Row, measured: list[Pair]) -> tuple[list[str], int]:
    """Return a line for each goal, and how many goals were missed."""
    missed = 0
    lines = list[str]()
    for kind, goal in row.goals.items():
        ours = [_value(command, kind) for command, _ in measured]
        theirs = [_value(against, kind) for _, against in measured]
        ratio = statistics.median(map(float.__truediv__, ours, theirs))
        missed += ratio > goal
        medians = [_format(statistics.median(side), kind) for side in (ours, theirs)]
        figures = f"{ratio:7.2f}{goal:7.2f}{medians[0]:>10}{medians[1]:>10}"
        lines.append(f"{row.name:52}{kind:>10}{figures}")
    return lines, missed


def _value(measured: Measured, kind: str) -> float:
    match kind:
        case "time":
            return measured.seconds
        case "memory":
            return float(measured.memory)
        case _:
            return float(measured.anonymous)


def _format(value: float, kind: str) -> str:
    if kind == "time":
        return f"{value:.2f} s"
    return f"{value / 1e6:,.0f} MB"


def _chosen_rows(folder: Path, width: int, text: str) -> Iterator[Row]:
    """Yield the rows whose name contains the text, once their files are made."""
    made = set[str]()
    for row in rows(folder, width):
        if text not in row.name:
            continue
        if row.files not in made:
            make(row.files, folder, width)
            made.add(row.files)
        yield row


def main() -> int:
    """Measure the rows that the command line asks for; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--row", default="", help="only rows whose name contains this text")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="the size of each large file")
    parser.add_argument("--folder", help="a folder on a disk with room for six large files")
    arguments = parser.parse_args()
    total_missed = 0
    width = width_of(arguments.gigabytes)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        figures = f"{'ratio':>7}{'goal':>7}{'ours':>10}{'theirs':>10}"
        sys.stdout.write(f"{'measure':52}{'of':>10}{figures}\n")
        for row in _chosen_rows(folder, width, arguments.row):
            lines, missed = report_lines(row, pairs(row, arguments.repeats, folder))
            total_missed += missed
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
    return min(total_missed, 1)


if __name__ == "__main__":
    sys.exit(main())
