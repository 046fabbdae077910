"""Fuzz the readers that need no torch by coverage: libFuzzer keeps what reaches new code.

python -m tests.safety.fuzz_readers [--seconds 600] [--reader pickles] [--folder FOLDER]

The readers take turns. They start from honest files and from mutations of them. Later runs go on
from the inputs in FOLDER/inputs. What fails is written to FOLDER/failures, one input for each place
in the code: an exception that is not a refusal, a few seconds, or much memory.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.safety.readers import Reader

TURN_SECONDS = 300
MUTATED_SEEDS = 40
MAX_TRIES = 6
MAX_INPUT_BYTES = 2**15
MAX_SECONDS = 20
MAX_MEGABYTES = 2048
MAX_WORDS = 400
# Of the libraries that the readers build on, these are Python code.
MEASURED = ("composecli.files", "composecli.core", "pickletools")

_DONE = re.compile(rb"Done (\d+) runs")
_WORD = re.compile(rb"[A-Za-z_][\w.]{1,30}|[^\w\s]{1,4}")


def honest_files(folder: Path) -> list[bytes]:
    """Return small honest files of each kind."""
    import torch
    from torch import nn

    from tests.safety.fixtures import exported, exported_sizes, member, saved
    from tests.safety.fuzz import bases, scripts

    old = {"model": nn.Sequential(nn.LSTM(3, 2)), "epoch": 3}
    weights = {"state_dict": nn.Linear(3, 2).state_dict(), "half": torch.ones(2).half()}
    return [
        *bases(folder),
        *scripts(folder)[2:],
        saved(weights),
        saved(old, _use_new_zipfile_serialization=False),
        member(exported(), "sample_inputs/model.pt"),
        exported_sizes(),
    ]


def _without_checksums() -> bytes:
    """Return an archive in which any byte may change: with checksums, hardly one could."""
    import torch

    from tests.safety.fixtures import exported

    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        return exported()
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)


def seeds(name: str, files: list[bytes], mutated: int = MUTATED_SEEDS) -> list[bytes]:
    """Return the first inputs of a reader: those of the files, and some mutations of each."""
    from tests.safety.readers import READERS

    reader = READERS[name]
    honest = [data for file in files for data in reader.inputs(file)]
    if name == "archives":
        honest.append(_without_checksums())
    random = Random(0)
    return [*honest, *(_changed(reader, data, random) for data in honest * mutated)]


def _changed(reader: Reader, data: bytes, random: Random) -> bytes:
    """Return an input with one of the mutations; the same if several did not suit it."""
    for _ in range(MAX_TRIES):
        changed = reader.mutated(data, random)
        if changed is not None:
            return changed
    return data


def write_seeds(name: str, folder: Path, files: list[bytes]) -> None:
    """Write the first inputs and the words of a reader to a folder."""
    inputs = folder / "inputs" / name
    inputs.mkdir(parents=True, exist_ok=True)
    words = Counter[bytes]()
    for data in seeds(name, files):
        (inputs / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
        words.update(set(_WORD.findall(data)))
    lines = ["".join(f"\\x{byte:02x}" for byte in word) for word, _ in words.most_common(MAX_WORDS)]
    dictionary = "".join(f'"{line}"\n' for line in lines)
    (folder / f"{name}.words").write_text(dictionary)


def fuzz_reader(name: str, folder: Path, seconds: int) -> None:
    """Fuzz one reader in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=list(MEASURED)):
        from tests.safety.readers import READERS

    reader = READERS[name]
    failures = folder / "failures"
    failures.mkdir(exist_ok=True)

    def attempt(data: bytes) -> None:
        failure = reader.attempt(data)
        if failure:
            _report(failures, name, data, failure)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        changed: bytes | None = None
        if random.random() < 0.3:
            changed = reader.mutated(data, random)
        if changed is None or len(changed) > max_size:
            changed = atheris.Mutate(data, max_size)
        return changed

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={MAX_SECONDS}",
        f"-rss_limit_mb={MAX_MEGABYTES}",
        f"-dict={folder / name}.words",
        f"-artifact_prefix={failures}/{name}-",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    inputs = str(folder / "inputs" / name)
    atheris.Setup([sys.argv[0], *options, inputs], attempt, custom_mutator=mutate)
    # The code that suggests commands looks for Python files in the current folder.
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        atheris.Fuzz()


def _report(failures: Path, name: str, data: bytes, failure: str) -> None:
    """Write an input that failed, unless another one has failed in the same place."""
    places = re.findall(r'File ".*/(\w+)\.py", line (\d+)', failure)
    place = "slow"
    if places:
        place = "-".join((*places[-1], failure.splitlines()[-1].partition(":")[0]))
    path = failures / f"{name}-{place}"
    if not path.exists():
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(failure)
        sys.stdout.write(f"failure {path}\n{failure}\n")
        sys.stdout.flush()


def _turns(names: list[str], seconds: int) -> Iterator[tuple[str, int]]:
    """Yield the name and the seconds of each turn."""
    turn = max(1, min(TURN_SECONDS, seconds // len(names)))
    end = time.monotonic() + seconds
    while True:
        for name in names:
            remaining = round(end - time.monotonic())
            if remaining <= 0:
                return
            yield name, min(turn, remaining)


def run_turns(names: list[str], seconds: int, folder: Path) -> bool:
    """Fuzz the readers in turn, each in a process of its own; return whether none failed."""
    with tempfile.TemporaryDirectory() as scratch:
        files = honest_files(Path(scratch))
    for name in names:
        write_seeds(name, folder, files)
    counts = Counter[str]()
    for name, turn in _turns(names, seconds):
        command = [sys.executable, "-m", "tests.safety.fuzz_readers", "--turn", "--reader", name]
        command += ["--seconds", str(turn), "--folder", str(folder)]
        result = subprocess.run(command, stderr=subprocess.PIPE, check=False)
        runs = _DONE.search(result.stderr)
        if runs is not None:
            counts[name] += int(runs[1])
        if result.returncode:
            sys.stdout.write(result.stderr[-4000:].decode(errors="replace"))
        sys.stdout.write(f"{name}: {counts[name]:,} runs\n")
        sys.stdout.flush()
    found = sorted(path.name for path in (folder / "failures").iterdir() if path.suffix != ".txt")
    total = sum(counts.values())
    sys.stdout.write(f"{total:,} runs; failures: {len(found)} {', '.join(found)}\n")
    return not found


def main() -> int:
    """Fuzz for the time that the command line says; return 1 if any input failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--reader", choices=["archives", "pickles", "programs", "sources"])
    parser.add_argument("--folder", type=Path, default=Path(".venv/fuzzing/work"))
    parser.add_argument("--turn", action="store_true", help="of one reader, in this process")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    if arguments.turn:
        fuzz_reader(arguments.reader, folder, arguments.seconds)
    names = ["archives", "pickles", "programs", "sources"]
    if arguments.reader is not None:
        names = [arguments.reader]
    return int(not run_turns(names, arguments.seconds, folder))


if __name__ == "__main__":
    sys.exit(main())
