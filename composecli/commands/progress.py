"""Progress: one line of text at a time, for a person who is waiting."""

from __future__ import annotations

from collections.abc import Callable

from composecli.core.pytree import Call

Progress = Callable[[str], None]

MAX_NAME_CHARS = 30


def silent(_text: str) -> None:
    """Report nothing."""


class ProbeCounter:
    """Counts the probes of one model, and reports each of them with its call."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        if len(name) > MAX_NAME_CHARS:
            # The call has to fit on the line, too.
            end = name[1 - MAX_NAME_CHARS :]
            self._name = f"…{end}"
        self._count = 0

    def step(self, call: Call) -> None:
        """Report one more probe, which is about to run."""
        self._count += 1
        self._progress(f"inferring {self._name}: probe {self._count} on {call}")
