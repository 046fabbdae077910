"""Measure a command: its duration, and the peak memory of it and of its child processes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.02
CHUNK_BYTES = 2**24
# What is left free when the memory is filled.
FREE_BYTES = 2**29
Words = tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """`memory` is the peak resident size and `anonymous` its peak without file pages, in bytes."""

    seconds: float
    memory: int
    anonymous: int


class _Peaks:
    """The peak sizes of a process and its descendants, sampled in a thread until it is stopped."""

    def __init__(self, process_id: int) -> None:
        self.memory = 0
        self.anonymous = 0
        self._process_id = process_id
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            memory = 0
            anonymous = 0
            for process_id in _family(self._process_id):
                sizes = _sizes(f"/proc/{process_id}/status", "VmRSS", "RssAnon")
                memory += sizes[0]
                anonymous += sizes[1]
            self.memory = max(self.memory, memory)
            self.anonymous = max(self.anonymous, anonymous)

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


def measure(words: Words, environment: dict[str, str], expected: tuple[int, ...]) -> Measured:
    """Run a command to its end.

    Raises:
        SystemExit: if its exit code is not one of those that are expected.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peaks = _Peaks(process.pid)
    code = process.wait()
    seconds = time.perf_counter() - start
    peaks.stop()
    if code not in expected:
        raise SystemExit(f"{' '.join(words)[:300]} ended with {code}")
    return Measured(seconds, peaks.memory, peaks.anonymous)


def fill_free_memory(empty: Path) -> None:
    """Fill the free memory with the pages of a sparse file, as on a machine that has been in use.

    A virtual machine returns free memory to its host, and getting it back costs more than a copy:
    which of two commands pays for that would be chance.
    """
    while (free := _sizes("/proc/meminfo", "MemFree")[0] - FREE_BYTES) > CHUNK_BYTES:
        start = 0
        if empty.exists():
            start = empty.stat().st_size
        with empty.open("ab") as file:
            file.truncate(start + free)
        with empty.open("rb", buffering=0) as file:
            file.seek(start)
            while file.read(CHUNK_BYTES):
                pass


def _family(process_id: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    yield process_id
    try:
        tasks = os.listdir(f"/proc/{process_id}/task")
        texts = [Path(f"/proc/{process_id}/task/{task}/children").read_text() for task in tasks]
    except OSError:
        return
    for text in texts:
        for child in text.split():
            yield from _family(int(child))


def _sizes(path: str, *names: str) -> list[int]:
    """Return sizes in bytes from a file of /proc, which gives them in kB; 0 if there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        lines = []
    kilobytes = dict[str, int]()
    for line in lines:
        name, _, value = line.partition(":")
        if name in names:
            kilobytes[name] = int(value.split()[0])
    return [1024 * kilobytes.get(name, 0) for name in names]
