"""What commands cost against what a user would otherwise run: medians of ratios of paired repeats, in one run.

python -m tests.bench.run [--repeats 9] [--row TEXT] [--gigabytes 2]
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import Measured, Words, fill_free_memory, measure

PYTHON = (sys.executable, "-c")
COMPOSECLI = (sys.executable, "-m", "composecli")
IMPORT = (*PYTHON, "import torch")
MANY = 30
LAYERS = 31
# Gigabytes of a model that the large ones are held against.
MIDDLE = 0.02
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


@dataclass(frozen=True)
class Row:
    """A command and what it is measured against; each ratio is to be at most its goal. `files` are made for it, and
    what they `write`, large files, is not there when either starts."""

    name: str
    command: Words
    against: Words
    goals: Mapping[str, float]
    files: str = "small"
    repeats: int | None = None
    writes: tuple[Path, ...] = ()


def rows(folder: Path, width: int) -> list[Row]:
    def check(*names: str, cached: bool = False) -> Words:
        return (
            *COMPOSECLI,
            "check",
            *(str(folder / name) for name in names),
            *(() if cached else ("--no-cache",)),
        )

    def script(names: Words, shape: str) -> Words:
        return (*PYTHON, SCRIPT, *(str(folder / name) for name in names), shape)

    small, exported = ("one.pt", "other.pt"), ("one.pt2", "other.pt2")
    large, middle, residual = (
        (f"{name}_a.pt", f"{name}_b.pt") for name in ("large", "middle", "resnet")
    )
    many = tuple(f"many_{number}.pt" for number in range(MANY))
    copies = " && ".join(f"cp {folder / name} {folder}/copy_{name}" for name in large)
    copy = f"{copies} && sync {' '.join(f'{folder}/copy_{name}' for name in large)}"
    written = (folder / "joined.pt", *(folder / f"copy_{name}" for name in large))
    join = (
        *COMPOSECLI,
        "join",
        *(str(folder / name) for name in large),
        "-o",
        str(written[0]),
        "--force",
    )
    inspects = " && ".join(
        f"{sys.executable} -m composecli inspect {folder / name} --no-cache" for name in many
    )
    time, both = {"time": 1.1}, {"time": 1.1, "memory": 1.1}
    return [
        Row("check, two small TorchScript, cold", check(*small), IMPORT, {"time": 1.2}),
        Row("check, two small .pt2, cold", check(*exported), IMPORT, {"time": 1.3}),
        Row("check, the same pair again", check(*small, cached=True), IMPORT, {"time": 0.15}),
        Row("--help, against python -c pass", (*COMPOSECLI, "--help"), (*PYTHON, "pass"), {"time": 6}),
        Row("check, against no isolation", check(*small), (*check(*small), "--isolation", "none"), {"time": 1.15}),
        Row("check, ResNet-50s, no hints, against a script", check(*residual), script(residual, "1,3,224,224"),
            {"time": 1.0}, "residual", 5),
        Row("check, large, against a script", check(*large), script(large, f"1,{width}"),
            {"time": 0.5, "memory": 0.1}, "large", 3),
        Row("check, large, against 20 MB", check(*large), check(*middle), both, "large", 5),
        Row("join, large, against cp and sync", join, ("sh", "-c", copy), {"time": 2}, "large", 5, written),
        Row("join, large, against import torch", join, IMPORT, {"anonymous": 2}, "large", 3),
        Row(f"check, {MANY} files in pairs, against {MANY} inspects", (*check(*many), "--mode", "pairs"),
            ("sh", "-c", inspects), time, "many", 3),
    ]  # fmt: skip


def make(what: str, folder: Path, width: int) -> None:
    """Make the files of some rows, in a process of its own: what it held goes with it."""
    numbers = {"small": 0, "residual": 0, "many": MANY, "large": width, "middle": width_of(MIDDLE)}
    for name in ("large", "middle") if what == "large" else (what,):
        words = [sys.executable, "-m", "tests.bench.models", name, str(folder), str(numbers[name])]
        subprocess.run(words, check=True, env=_environment(folder))


def width_of(gigabytes: float) -> int:
    """Of the layers of a model that has about so many bytes."""
    return int(math.sqrt(gigabytes * 1e9 / 4 / LAYERS))


def _environment(folder: Path) -> dict[str, str]:
    root = str(Path(__file__).parent.parent.parent)
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "XDG_CACHE_HOME": str(folder / "cache")}
    return {
        key: value
        for key, value in {**os.environ, **own}.items()
        if key != "PYTHONDONTWRITEBYTECODE"
    }


def pairs(row: Row, repeats: int, folder: Path) -> list[tuple[Measured, Measured]]:
    """What both sides cost, one after the other, as often; a first time to warm what can be warm is left out."""
    found = [
        (_side(row.command, row.writes, folder), _side(row.against, row.writes, folder))
        for _ in range((row.repeats or repeats) + 1)
    ]
    return found[1:]


def _side(words: Words, writes: tuple[Path, ...], folder: Path) -> Measured:
    for path in writes:
        path.unlink(missing_ok=True)
    if writes:
        fill_free_memory(folder / "empty")
        for path in folder.glob("large_*"):
            subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)
    return measure(words, _environment(folder), (0, 1))


def lines(row: Row, found: list[tuple[Measured, Measured]]) -> tuple[list[str], int]:
    """A line for each goal, and how many were missed."""
    missed, text = 0, list[str]()
    for kind, goal in row.goals.items():
        values = [(_value(one, kind), _value(other, kind)) for one, other in found]
        ratio = statistics.median(one / other for one, other in values)
        missed += ratio > goal
        shown = [_shown(statistics.median(side), kind) for side in zip(*values, strict=True)]
        text.append(f"{row.name:52}{kind:>10}{ratio:7.2f}{goal:7.2f}{shown[0]:>10}{shown[1]:>10}")
    return text, missed


def _value(measured: Measured, kind: str) -> float:
    return {"time": measured.seconds, "memory": measured.memory, "anonymous": measured.anonymous}[
        kind
    ]


def _shown(value: float, kind: str) -> str:
    return f"{value:.2f} s" if kind == "time" else f"{value / 1e6:,.0f} MB"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--row", default="", help="rows whose names hold this")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of each large file")
    parser.add_argument("--folder", default=None, help="a disk with room for six of them")
    arguments = parser.parse_args()
    missed, width = 0, width_of(arguments.gigabytes)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        made = set[str]()
        sys.stdout.write(
            f"{'measure':52}{'of':>10}{'ratio':>7}{'goal':>7}{'ours':>10}{'theirs':>10}\n"
        )
        for row in rows(Path(name), width):
            if arguments.row not in row.name:
                continue
            if row.files not in made:
                make(row.files, Path(name), width)
                made.add(row.files)
            text, more = lines(row, pairs(row, arguments.repeats, Path(name)))
            missed += more
            sys.stdout.write("\n".join(text) + "\n")
            sys.stdout.flush()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
