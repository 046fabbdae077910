"""Measuring a command: how long it takes, and the most memory that it and what it starts hold at once."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

EVERY = 0.02
PIECE = 2**24
# Of the memory that is filled.
LEFT_FREE = 2**29
Words = tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """`memory` is the most that was resident, `anonymous` the most of it that was not a file's, both in bytes."""

    seconds: float
    memory: int
    anonymous: int


def measure(words: Words, environment: dict[str, str], expected: tuple[int, ...]) -> Measured:
    """Run a command to its end.

    Raises:
        SystemExit: it ended with another code than it should.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peaks = [0, 0]
    done = threading.Event()
    watching = threading.Thread(target=_watch, args=(process.pid, peaks, done))
    watching.start()
    code = process.wait()
    seconds = time.perf_counter() - start
    done.set()
    watching.join()
    if code not in expected:
        raise SystemExit(f"{' '.join(words)[:300]} ended with {code}")
    return Measured(seconds, *peaks)


def fill_free_memory(empty: Path) -> None:
    """Fill it with pages of a sparse file, as the memory of a machine is that has been in use for a while.

    A virtual machine gives free memory back to its host, and to get it again costs more than a copy: which of two
    commands pays for that is chance.
    """
    while (free := _sizes("/proc/meminfo", "MemFree")[0] - LEFT_FREE) > PIECE:
        start = empty.stat().st_size if empty.exists() else 0
        with empty.open("ab") as file:
            file.truncate(start + free)
        with empty.open("rb", buffering=0) as file:
            file.seek(start)
            while file.read(PIECE):
                pass


def _watch(process: int, peaks: list[int], done: threading.Event) -> None:
    while not done.wait(EVERY):
        held = [_memory(number) for number in _family(process)]
        for place in (0, 1):
            peaks[place] = max(peaks[place], sum(memory[place] for memory in held))


def _family(process: int) -> Iterator[int]:
    yield process
    try:
        tasks = os.listdir(f"/proc/{process}/task")
        texts = [Path(f"/proc/{process}/task/{task}/children").read_text() for task in tasks]
    except OSError:
        return
    for text in texts:
        for child in text.split():
            yield from _family(int(child))


def _memory(process: int) -> tuple[int, int]:
    resident, anonymous = _sizes(f"/proc/{process}/status", "VmRSS", "RssAnon")
    return resident, anonymous


def _sizes(path: str, *names: str) -> list[int]:
    """In bytes, what a file of the system says of memory under these names; none where it does not."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        lines = []
    held = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return [1024 * int(held.get(name, ["0"])[0]) for name in names]
