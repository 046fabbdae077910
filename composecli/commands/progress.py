"""Progress: one line of text at a time, for a person who is waiting."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str], None]

# Fast models are done before the first report, so that nothing flickers.
SECONDS_BEFORE_FIRST_REPORT = 1.0
SECONDS_BETWEEN_REPORTS = 0.5


def silent(_text: str) -> None:
    """Report nothing."""


class ProbeCounter:
    """Counts the probes of one model, and reports the count while inference goes on.

    `clock` returns the time in seconds.
    """

    def __init__(
        self, progress: Progress, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._progress = progress
        self._name = name
        self._clock = clock
        self._count = 0
        self._next_report = clock() + SECONDS_BEFORE_FIRST_REPORT

    def step(self) -> None:
        """Count one more probe, and report if the last report is old enough."""
        self._count += 1
        if self._clock() > self._next_report:
            self._next_report += SECONDS_BETWEEN_REPORTS
            self._progress(f"inferring the contract of {self._name}: {self._count} probes")
